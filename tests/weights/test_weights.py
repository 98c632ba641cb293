"""The one way to weights, for all that take it."""

import numpy as np
import pytest

import segnext_jax
from segnext_jax import config as config_lib
from segnext_jax import main, weights
from segnext_jax.cli import command
from segnext_jax.convert import __main__ as convert
from segnext_jax.convert import files
from segnext_jax.demo import __main__ as demo
from segnext_jax.export import __main__ as export
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.predict import __main__ as predict
from segnext_jax.training.run import initial_variables


def evaluate(old, data, which):
    del data
    return main.main, [f"--workdir={old / 'run'}", "--mode=evaluate", which]


def predicting(old, data, which):
    arguments = [f"--checkpoint={old / 'run'}", f"--output={old / 'out'}", which]
    return predict.main, [str(data / "images" / "val"), *arguments]


def demonstrate(old, data, which):
    del data
    return demo.main, [f"--checkpoint={old / 'run'}", which]


def exporting(old, data, which):
    del data
    return export.main, [f"--checkpoint={old / 'run'}", f"--to={old / 'out'}", which]


def converting(old, data, which):
    del data
    return convert.main, [f"--from={old / 'run'}", f"--to={old / 'a.npz'}", which]


def starting(old, data, which):
    which = which.replace("--which", "--config.init_which")
    return main.main, [
        *(f"--config={old / 'mine_fast.py'}", f"--workdir={old / 'new'}", which),
        *(f"--config.init_from={old / 'run'}", f"--config.data.folder={data}"),
        "--config.data.mask_values=colours",
    ]


COMMANDS = [evaluate, predicting, demonstrate, exporting, converting, starting]


@pytest.fixture(params=COMMANDS, ids=lambda build: build.__name__)
def refuse(request, old, old_data, capsys):
    """Run a command that must fail; return its one sentence."""

    def run(which) -> str:
        program, arguments = request.param(old, old_data, which)
        arguments += [f"--config.data.folder={old_data}"] * (program is main.main)
        assert command.run(program, [*dict.fromkeys(arguments)]) == 1
        lines = capsys.readouterr().err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1 and not any("Traceback" in line for line in lines)
        return errors[0]

    return run


def test_every_command_names_a_checkpoint_and_refuses_a_damaged_one(refuse, old):
    assert "has no checkpoint of step 5: it keeps those of 4, 6." in refuse("--which=5")
    newest = old / "run" / "checkpoints" / "6" / "model" / "_METADATA"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0x04
    newest.write_bytes(bytes(content))
    message = refuse("--which=6")
    assert "checkpoint 6 in " in message and "model/_METADATA is not what" in message
    newest.write_bytes(bytes(content[: len(content) // 2]))
    assert "model/_METADATA is not what was written" in refuse("--which=6")
    for name in ("new", "out", "a.npz"):
        assert not (old / name).exists(), "nothing is begun"


def kernel(network):
    return np.asarray(network.variables["params"]["decode_head"]["conv_seg"]["kernel"])


def test_load_takes_the_checkpoint_that_is_asked_for_and_says_so(old, caplog):
    run = old / "run"
    with caplog.at_level("INFO"):
        best = segnext_jax.load(run, which="best")
        assert f"Weights: {run}, step 4, mIoU 50.95." in caplog.text
        newest = segnext_jax.load(run)
        assert f"Weights: {run}, step 6, mIoU 39.10." in caplog.text
    assert (kernel(best) != kernel(newest)).mean() > 0.9
    same = segnext_jax.load(run / "checkpoints" / "4")
    np.testing.assert_array_equal(kernel(same), kernel(best))
    (run / "checkpoints" / "6" / "model" / "manifest.ocdbt").write_bytes(b"")
    passed = segnext_jax.load(run)
    np.testing.assert_array_equal(kernel(passed), kernel(best))
    assert "Checkpoint 6 is damaged" in caplog.text


def test_a_training_starts_from_the_best(old, old_data, caplog):
    fields = [f"init_from={old / 'run'}", "init_which=best"]
    fields += [f"data.folder={old_data}", "data.mask_values=colours"]
    config = config_lib.load(str(old / "mine_fast.py"), fields)
    model = SegNeXt.from_config(config.model, num_classes=3)
    with caplog.at_level("INFO"):
        start = initial_variables(config, model)
    assert f"Starting from {old / 'run'}, step 4, mIoU 50.95: " in caplog.text
    start = start["params"]["decode_head"]["conv_seg"]["kernel"]
    np.testing.assert_array_equal(start, kernel(weights.load(old / "run", "4")))


def test_of_a_file_no_checkpoint_is_asked_for(tmp_path):
    files.write(tmp_path / "a.npz", {"x": np.zeros(3)}, {})
    for load in (weights.load, weights.load_network):
        with pytest.raises(ValueError, match="one file, not .* got best as the one"):
            load(tmp_path / "a.npz", "best")
        with pytest.raises(ValueError, match="the network to load must exist"):
            load(tmp_path / "b.npz")
    assert "--which is for" in str(
        pytest.raises(
            ValueError,
            convert.main,
            [f"--from={tmp_path / 'a.npz'}", f"--to={tmp_path / 'b'}", "--which=best"],
        ).value
    )


@pytest.mark.parametrize(
    "field",
    ["optimizer.learning_rate=1.0", "evaluation.num_bases=5", "data.num_workers=0"]
    + ["batch_size=4", "loss.weights.dice=1.0", "evaluation.at_start=true"],
)
def test_fields_that_a_predictor_does_not_use_are_refused(old, field):
    name = field.partition("=")[0]
    with pytest.raises(ValueError, match=f"config.{name} has no effect on prediction"):
        segnext_jax.load(old / "model", overrides=[field])


def test_fields_that_a_predictor_uses_are_set(old):
    fields = ["evaluation.flip=true", "model.dtype=bfloat16", "data.std=1.0,2.0,3.0"]
    config = segnext_jax.load(old / "model", overrides=fields).config
    assert config.evaluation.flip and config.data.std == (1.0, 2.0, 3.0)
    assert config.model.dtype == "bfloat16"
