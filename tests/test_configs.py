"""Every shipped configuration against the paper's tables, by tracing alone."""

import functools
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util

from segnext_jax import config as config_lib
from segnext_jax.datasets import SPECS
from segnext_jax.models.classifier import MSCANClassifier
from segnext_jax.models.initialization import abstract_variables
from segnext_jax.models.segnext import VARIANTS, SegNeXt, Variant
from segnext_jax.training import optimizer as optimizer_lib
from segnext_jax.training import schedule as schedule_lib

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
SIZES = ("tiny", "small", "base", "large")
# Paper, appendix, table 1: (data set, crop, batch, steps).
PAPER = {
    "ade20k": ("ade20k", 512, 16, 160_000),
    "cityscapes": ("cityscapes", 1024, 8, 160_000),
    "coco_stuff": ("coco_stuff", 512, 16, 80_000),
    "voc2012": ("voc2012", 512, 16, 80_000),
    "voc2012_finetune": ("voc2012", 512, 16, 80_000),
    "voc2012_coco_pretrain": ("coco_stuff", 512, 16, 600_000),
    "voc2012_coco_finetune": ("voc2012", 512, 16, 40_000),
    "pascal_context": ("pascal_context_59", 480, 16, 80_000),
    "isaid": ("isaid", 896, 16, 160_000),
}
ROWS = {f"{run}_{size}" for run in PAPER if "coco_" not in run for size in SIZES} | {
    f"{run}_large" for run in PAPER
}
# Parameters of the official code's networks: RECIPE.md 2.1.
NUM_PARAMETERS = {
    150: (4_263_414, 13_932_886, 27_636_310, 48_926_550),
    19: (4_229_747, 13_899_219, 27_569_107, 48_792_275),
    171: (4_268_811, 13_938_283, 27_647_083, 48_948_075),
    16: (4_228_976, 13_898_448, 27_567_568, 48_789_200),
    21: (4_230_261, 13_899_733, 27_570_133, 48_794_325),
    59: (4_240_027, 13_909_499, 27_589_627, 48_833_275),
    60: (4_240_284, 13_909_756, 27_590_140, 48_834_300),
}
# (drop path, rank) of the official configs.
OFFICIAL = {
    "tiny": (0.1, 16),
    "small": (0.1, 16),
    "base": (0.1, 64),
    "large": (0.3, 64),
}


def split_name(path: pathlib.Path) -> tuple[str, str]:
    run, _, size = path.stem.rpartition("_")
    return run, size


def traced(config) -> tuple[jax.ShapeDtypeStruct, dict]:
    """Logits of one crop, and parameters by path; nothing is compiled."""
    model = SegNeXt.from_config(config.model, SPECS[config.data.name].num_classes)
    # The shifted form has the same parameters and takes longer to trace.
    model = model.clone(depthwise_implementation="grouped")
    return trace(model, config.data.crop_size)


@functools.cache
def trace(model: SegNeXt, crop_size: tuple[int, int]):
    image = jax.ShapeDtypeStruct((1, *crop_size, 3), jnp.float32)
    logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    return logits, variables["params"]


def count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def mmcv_rate(config, step: int) -> float:
    """PolyLrUpdaterHook with linear warm-up, as plain Python."""
    rate = 6e-5 * (1 - step / config.num_steps)
    return rate * (1 - (1 - step / 1500) * (1 - 1e-6)) if step < 1500 else rate


def test_each_row_of_the_paper_has_a_file():
    assert ROWS <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_is_valid_and_says_how_to_run_it(path):
    config = config_lib.load(str(path))
    assert config.is_locked
    text = path.read_text()
    assert f"segnext-jax train --config={path.stem}" in text
    assert re.search(rf"segnext-jax (prepare|check) {config.data.name}", text, re.I)
    assert config_lib.from_json(config_lib.to_json(config)) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_data_set_of_the_config_can_be_prepared(path):
    name = config_lib.load(str(path)).data.name
    assert (path.parents[1] / "data" / name / "prepare.py").is_file()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_starts_from_what_another_leaves(path):
    """A run that goes on from another's workdir names it, and its command before."""
    start = config_lib.load(str(path)).init_from
    if start:
        before = path.with_name(f"{pathlib.Path(start).name}.py")
        config_lib.load(str(before))
        assert re.search(
            rf"config={before.stem}\n.*config={path.stem}\n", path.read_text()
        )


@pytest.mark.parametrize("name", sorted(ROWS))
def test_config_is_the_row_of_the_paper(name):
    path = CONFIGS[0].with_name(f"{name}.py")
    run, size = split_name(path)
    config = config_lib.load(str(path))
    data, crop, batch_size, num_steps = PAPER[run]
    assert config.data.name == data
    assert config.data.crop_size == (crop, crop)
    assert (config.batch_size, config.num_steps) == (batch_size, num_steps)
    assert config.model.variant == size
    variant = SegNeXt.from_config(config.model, 2).variant
    assert (variant.drop_path_rate, variant.rank) == OFFICIAL[size]
    assert (config.data.train_split == "trainval") == ("finetune" in run)
    assert bool(config.init_from) == ("finetune" in run)

    schedule = schedule_lib.from_config(config)
    # Start, warm-up end, middle, last step.
    for step in (0, 750, 1499, 1500, num_steps // 2, num_steps - 1):
        expected = mmcv_rate(config, step)
        # 1 - t in float32 loses 2^-24 of 1, which is much of the last step's rate.
        error = 6e-5 * 2**-23
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-6, abs=error)
    assert float(schedule(num_steps)) == 0


@pytest.mark.parametrize("size", SIZES)
def test_network_and_groups_are_the_official(size):
    path = CONFIGS[0].with_name(f"ade20k_{size}.py")
    config = config_lib.load(str(path))
    logits, params = traced(config)
    assert logits.shape == (1, 64, 64, 150)
    assert count(params) == NUM_PARAMETERS[150][SIZES.index(size)]

    groups = optimizer_lib.Optimizer.from_config(config).rules
    rules = optimizer_lib.assign(params, groups)
    for parameter, rule in traverse_util.flatten_dict(rules, sep="/").items():
        # mmcv: the longest key that the name holds decides.
        expected = (1.0, 0.0) if "norm" in parameter else (1.0, 1.0)
        if "head" in parameter:
            expected = (10.0, 1.0)
        assert (rule.lr_multiplier, rule.decay_multiplier) == expected, parameter


@pytest.mark.parametrize("num_classes", NUM_PARAMETERS)
def test_a_class_has_a_weight_for_each_channel_and_a_bias(num_classes):
    """The rest of a network is that of 150 classes, as a shallow one shows."""
    shallow = Variant((4, 8, 12, 16), (1, 1, 1, 1), (2, 2, 2, 2), 0.0, 32, 4)
    logits, params = trace(SegNeXt(shallow, num_classes), (64, 96))
    assert logits.shape == (1, 8, 12, num_classes)
    _, of_150 = trace(SegNeXt(shallow, 150), (64, 96))
    more = num_classes - 150
    assert count(params) == count(of_150) + more * (32 + 1)
    assert NUM_PARAMETERS[num_classes] == tuple(
        count + more * (VARIANTS[size].head_channels + 1)
        for size, count in zip(SIZES, NUM_PARAMETERS[150], strict=True)
    )


@pytest.mark.parametrize("name", sorted(ROWS))
def test_network_and_groups_are_those_traced_of_this_size(name):
    """But for the number of classes."""
    path = CONFIGS[0].with_name(f"{name}.py")
    config, traced = (
        config_lib.load(str(path.with_name(f"{other}.py")))
        for other in (name, f"ade20k_{split_name(path)[1]}")
    )
    num_classes = SPECS[config.data.name].num_classes
    assert num_classes in NUM_PARAMETERS
    assert SegNeXt.from_config(config.model, num_classes) == (
        SegNeXt.from_config(traced.model, num_classes)
    )
    ours, theirs = map(optimizer_lib.Optimizer.from_config, (config, traced))
    assert ours.rules == theirs.rules


def test_context_with_background_has_60_classes():
    path = CONFIGS[0].with_name("pascal_context_base.py")
    config = config_lib.load(str(path), ["data.name=pascal_context_60"])
    assert SPECS[config.data.name].num_classes == 60


# Parameters with the head of 1000 classes (RECIPE.md 2.1), top-1 of the paper's table 3
# and VAN's drop path rate of that size.
IMAGENET = {
    "tiny": (4_160_584, "75.9", 0.1),
    "small": (13_963_176, "81.2", 0.1),
    "base": (26_790_824, "83.0", 0.1),
    "large": (45_149_864, "83.9", 0.2),
}


@pytest.mark.parametrize("size", SIZES)
def test_pretraining_is_the_recipe_of_van(size):
    path = CONFIGS[0].with_name(f"imagenet_{size}.py")
    num_parameters, top1, drop_path_rate = IMAGENET[size]
    config = config_lib.load(str(path))
    assert f"top-1 {top1} (paper" in path.read_text()
    assert (config.task, config.data.name) == ("classification", "imagenet")
    assert (config.batch_size, config.data.crop_size) == (1024, (224, 224))
    epoch = 1_281_167 // 1024
    assert config.num_steps == 310 * epoch

    model = MSCANClassifier.from_config(config.model, 1000)
    assert model.variant.drop_path_rate == drop_path_rate
    params = abstract_variables(model)["params"]
    assert count(params) == num_parameters
    groups = optimizer_lib.Optimizer.from_config(config).rules
    rules = optimizer_lib.assign(params, groups)
    multipliers = {
        rule.decay_multiplier for rule in traverse_util.flatten_dict(rules).values()
    }
    assert multipliers == {0.0, 1.0}

    schedule = schedule_lib.from_config(config)
    for step, rate in (
        (0, 1e-6),
        (epoch, 1e-6 + (1e-3 - 1e-6) / 5),
        (5 * epoch, 1e-6 + (1e-3 - 1e-6) * (1 + math.cos(math.pi / 60)) / 2),
        (150 * epoch, (1e-3 + 1e-6) / 2),
        (300 * epoch, 1e-6),
        (310 * epoch, 1e-6),
    ):
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5)


def test_neighbour_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_lib.load(str(CONFIGS[0].with_name("cityscapes_tiny.py")))
    assert (config.data.name, config.model.variant) == ("cityscapes", "tiny")


def test_missing_neighbour_is_named(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from segnext_jax.config import start_from\n"
        "def get_config():\n"
        "    return start_from(__file__, 'yours.py')\n"
    )
    with pytest.raises(ValueError, match=r"yours\.py does not exist"):
        config_lib.load(str(path))
