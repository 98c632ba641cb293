"""A run with every option of the recipe, as a user starts it."""

import functools
import json
import operator
import pathlib
import shutil

import jax
import numpy as np
import pytest

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import arrays
from segnext_jax.checkpoints.checkpoints import Checkpoints
from segnext_jax.models.initialization import abstract_variables, initialize
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.ops import sharding
from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training import state as state_lib
from segnext_jax.training.evaluate import evaluate
from segnext_jax.training.loop import train
from segnext_jax.training.optimizer import Optimizer

FILE = str(pathlib.Path(__file__).parents[2] / "configs" / "shapes_tiny.py")
OPTIONS = (
    "accumulate_steps=2",
    "average_decay=0.5",
    "model.dtype=bfloat16",
    "model.frozen_stages=1",
    "model.remat=true",
    "model.depthwise=grouped",
    "mesh.fsdp=2",
    "mesh.fsdp_min_size=64",
    "optimizer.layer_decay=0.8",
    "optimizer.max_gradient_norm=1.0",
    "optimizer.momentum_dtype=bfloat16",
    "loss.weights.dice=0.5",
    "loss.ohem_min_kept=100",
)


def load(tiny_network, *overrides):
    return config_lib.load(FILE, [*tiny_network, *OPTIONS, *overrides])


def test_rules_follow_the_configuration(tiny_network):
    """Depths 1, 0, 0, 1: the stem is layer 0, the head would be layer 3."""
    config = load(tiny_network)
    params = initialize(SegNeXt.from_config(config.model, 7), seed=0)["params"]
    rules = Optimizer.from_config(config).rules
    claimed = optimizer_lib.assign(params, rules)["backbone"]
    assert claimed["patch_embed1"]["proj_0"]["kernel"].is_frozen
    assert claimed["norm1"]["scale"].is_frozen
    rule = claimed["block4_0"]["norm1"]["scale"]
    assert rule.lr_multiplier == pytest.approx(0.8)
    assert rule.decay_multiplier == 0
    # What has no block of its own belongs to the layer before.
    for path in (("patch_embed2", "norm"), ("norm2",), ("patch_embed3", "norm")):
        rule = functools.reduce(operator.getitem, path, claimed)["scale"]
        assert rule.lr_multiplier == pytest.approx(0.8**2)


def test_missing_start_is_refused_before_there_is_a_workdir(tiny_network, tmp_path):
    config = load(tiny_network, f"init_from={tmp_path / 'nothing'}")
    with pytest.raises(ValueError, match="config.init_from must be.*Run first"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_run_with_all_options_stops_and_goes_on(tiny_network, shapes_dir, tmp_path):
    """4 steps, and 2 + 2 on another mesh, end alike; the average is what is used."""
    options = (
        f"data.data_dir={shapes_dir}",
        "data.crop_size=32,48",
        "batch_size=16",
        "num_steps=4",
        "eval_every=4",
        "log_every=1",
        "optimizer.warmup_steps=1",
        "evaluation.batch_size=8",
        "evaluation.num_overlays=0",
    )
    whole = load(tiny_network, *options, "checkpoint_every=2")
    metrics = train(whole, tmp_path / "whole")
    # The state of step 2 is that of a run which was stopped there.
    (tmp_path / "parts").mkdir()
    for name in ("config.json", "checkpoints/2"):
        copy(tmp_path / "whole" / name, tmp_path / "parts" / name)
    again = load(tiny_network, *options, "checkpoint_every=2", "mesh.fsdp=4")
    assert train(again, tmp_path / "parts").summary()["mIoU"] == pytest.approx(
        metrics.summary()["mIoU"], abs=0.02
    )
    files = [tmp_path / run / "metrics.jsonl" for run in ("whole", "parts")]
    lines = [list(map(json.loads, path.read_text().splitlines())) for path in files]
    losses = [
        {line["step"]: line["loss"] for line in run if "loss" in line} for run in lines
    ]
    assert {"loss_cross_entropy", "loss_dice"} <= lines[0][0].keys()
    for step in (3, 4):
        # bfloat16 activations, summed in another order.
        assert losses[1][step] == pytest.approx(losses[0][step], rel=5e-3)

    # --mode=evaluate reads the model of the checkpoint: the average.
    assert evaluate(whole, tmp_path / "whole").summary() == pytest.approx(
        metrics.summary(), abs=1e-6
    )
    model, rest = stored(whole, tmp_path / "whole")
    start = initialize(SegNeXt.from_config(whole.model, 7), seed=0)
    stem = ("params", "backbone", "patch_embed1", "proj_0", "kernel")
    head = ("params", "decode_head", "conv_seg", "kernel")
    for tree, moved in ((stem, False), (head, True)):
        for other in (model, rest["variables"]):
            assert (at(other, tree) != at(start, tree)).any() == moved
        assert (at(model, tree) != at(rest["variables"], tree)).any() == moved
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model)} == {"float32"}


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


def at(tree, path) -> np.ndarray:
    for name in path:
        tree = tree[name]
    return np.asarray(tree)


def stored(config, workdir):
    """Model and rest of the newest checkpoint, as NumPy arrays, whatever the mesh."""
    create = functools.partial(
        state_lib.create,
        optimizer=Optimizer.from_config(config),
        has_average=True,
    )
    model = SegNeXt.from_config(config.model, 7)
    shapes = jax.eval_shape(create, abstract_variables(model))
    expected = arrays.abstract(
        shapes, sharding.replicated(sharding.make_mesh())
    ).to_checkpoint()
    checkpoints = Checkpoints(workdir)
    restored = checkpoints.restore(model=expected[0], optimizer=expected[1])
    checkpoints.close()
    return restored[:2]
