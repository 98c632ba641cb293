"""The mean of checkpoints."""

import shutil

import jax
import numpy as np

import segnext_jax
from segnext_jax import weights
from segnext_jax.cli import command
from segnext_jax.convert import __main__ as convert
from segnext_jax.convert import folder


def test_the_mean_of_two_checkpoints_is_a_model(old, capsys):
    run, mean = old / "run", old / "mean"
    checkpoints = [str(run / "checkpoints" / step) for step in ("4", "6")]
    arguments = ["--from", *checkpoints, "--to", str(mean)]
    assert command.run(convert.main, arguments) == 0
    told = capsys.readouterr().out
    assert f"mean of: {run}, step 4, mIoU 50.95\nmean of: {run}, step 6, mIo" in told
    first, second = (weights.load(run, step).variables for step in ("4", "6"))
    wanted = jax.tree.map(
        lambda a, b: ((a.astype(float) + b) / 2).astype(np.float32), first, second
    )
    given = weights.load(mean)
    jax.tree.map(np.testing.assert_array_equal, given.variables, wanted)
    model, whole = segnext_jax.load(mean), segnext_jax.load(run, which="4")
    assert model.spec == whole.spec and model.config == whole.config
    assert model.model == whole.model


def test_what_is_not_one_network_is_refused(old, capsys):
    def refusal(*sources, to="mean"):
        arguments = ["--from", *map(str, sources), "--to", str(old / to)]
        assert command.run(convert.main, arguments) == 1
        assert not (old / to).exists()
        return capsys.readouterr().err.splitlines()[-1]

    run = old / "run"
    found = refusal(run / "checkpoints/6", run)
    assert "must be different ones: " in found and "comes twice" in found
    assert "mine.py is none. Convert a file" in refusal(run, old / "mine.py")
    assert "is written as a folder: got " in refusal(run, old / "model", to="a.npz")
    assert "--rank are for files" in refusal(run, old / "model", "--rank=3")

    stored = weights.load(run)
    del stored.variables["params"]["decode_head"]["conv_seg"]["bias"]
    folder.write(old / "cut", stored.variables, stored.config)
    found = refusal(run, old / "cut")
    assert "differ in params.decode_head.conv_seg.bias." in found
    shutil.rmtree(old / "cut")
    stored = weights.load(run)
    stored.config.model.rank = 3
    folder.write(old / "cut", stored.variables, stored.config)
    assert "the classes or config.model.rank of " in refusal(run, old / "cut")
