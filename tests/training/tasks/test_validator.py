"""Evaluation over a split: devices, batches, bases and processes change nothing."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import model_folder
from segnext_jax.config.overrides import flatten
from segnext_jax.datasets import get_spec
from segnext_jax.evaluation.counting import Counts, count_image
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.ops import sharding
from segnext_jax.ops.photometric import normalize
from segnext_jax.pipeline.sources import open_source
from segnext_jax.pipeline.transforms import decode_pair
from segnext_jax.predict.predictor import Predictor
from segnext_jax.training import evaluate as evaluate_lib
from segnext_jax.training.tasks.validator import Validator

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def make_config(tiny_network, shapes_dir):
    def make(*overrides):
        path = ROOT / "configs" / "shapes_tiny.py"
        fixed = (f"data.data_dir={shapes_dir}", "evaluation.batch_size=8")
        return config_lib.load(str(path), [*tiny_network, *fixed, *overrides])

    return make


@pytest.fixture(scope="module")
def variables(make_config):
    """Weights that tell classes apart somehow: a classifier drawn widely."""
    config = make_config()
    model = SegNeXt.from_config(config.model, get_spec("shapes").num_classes)
    drawn = initialize(model, seed=0)
    classifier = drawn["params"]["decode_head"]["conv_seg"]
    classifier["kernel"] = 10 * classifier["kernel"]
    return drawn


def evaluate(config, variables):
    mesh = sharding.make_mesh()
    model = SegNeXt.from_config(config.model, get_spec("shapes").num_classes)
    validator = Validator(config, model, mesh)
    return validator.run(sharding.replicate(variables, mesh))


def test_another_evaluation_or_predictor_of_a_network_compiles_nothing(
    make_config, variables, caplog
):
    config = make_config()
    image = np.zeros((96, 128, 3), np.uint8)
    first = evaluate(config, variables), Predictor(variables, config).predict(image)
    config.seed = 1  # As that of another run.
    with jax.log_compiles():
        again = evaluate(config, variables), Predictor(variables, config).predict(image)
    assert "Compiling" not in caplog.text
    assert again[0].summary() == first[0].summary()
    np.testing.assert_array_equal(again[1].labels, first[1].labels)
    with jax.log_compiles():
        evaluate(make_config("model.nmf_eval_steps=3"), variables)
    assert "Compiling jit(_apply)" in caplog.text


def test_counts_equal_those_of_single_predictions(make_config, variables):
    """`Predictor.predict` image by image, on one device, against batches on eight."""
    config = make_config("evaluation.flip=true")
    metrics = evaluate(config, variables)
    spec = get_spec("shapes")
    model = Predictor(variables, config)
    source = open_source(spec, spec.val_split, config.data.data_dir)
    total = Counts.zeros(spec.num_classes, has_boundary=False)
    num_pixels = 0
    for index in range(len(source)):
        image, labels = decode_pair(source[index])
        total += count_image(
            model.predict(image).labels,
            labels,
            num_classes=spec.num_classes,
            ignore_label=spec.ignore_label,
        )
        num_pixels += (labels != spec.ignore_label).sum()
    assert metrics.confusion.sum() == num_pixels
    # Rounding may turn single pixels where two classes are equal.
    difference = np.abs(metrics.confusion - total.confusion).sum()
    assert difference <= 1e-4 * num_pixels
    assert (metrics.confusion.sum(axis=0) > 0).sum() > 2


def test_two_evaluations_are_identical(make_config, variables):
    config = make_config("evaluation.boundary_iou=true")
    first, second = (evaluate(config, variables) for _ in range(2))
    np.testing.assert_array_equal(first.confusion, second.confusion)
    np.testing.assert_array_equal(first.boundary_iou, second.boundary_iou)


def test_logits_of_one_image_and_of_sixteen_agree_and_bases_may_be_given(
    make_config, variables
):
    """Sixteen with the bases of the seed as an argument, one with the model's own."""
    config = make_config("model.nmf_eval_seed=3")
    model = SegNeXt.from_config(config.model, get_spec("shapes").num_classes)
    draws = model.draws(2)
    assert list(draws) == [3, 4]
    assert draws[3].shape == (1, 32, 4)
    bases = draws[3]
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (16, 47, 61, 3), np.uint8)
    inputs = normalize(jnp.asarray(images), config.data.mean, config.data.std)
    apply = jax.jit(model.apply)
    together = np.asarray(apply(variables, inputs, jnp.repeat(bases, 16, axis=0)))
    np.testing.assert_array_equal(apply(variables, inputs, bases), together)
    for row in (0, 7, 15):
        alone = np.asarray(apply(variables, inputs[row : row + 1]))
        np.testing.assert_allclose(alone[0], together[row], rtol=0, atol=1e-5)
    assert np.abs(together).max() > 0.5


def test_workdir_gets_table_picture_and_spread_over_bases(
    make_config, variables, tmp_path
):
    config = make_config(
        "evaluation.num_bases=3",
        "evaluation.boundary_iou=true",
        "evaluation.mode=slide",
        "evaluation.window=48,64",
        "evaluation.stride=48,48",
    )
    folder = tmp_path / "model"
    model_folder.save_model(folder, variables, config_lib.to_json(config))
    metrics = evaluate_lib.evaluate(config, folder)
    results = json.loads((folder / "evaluation.json").read_text())
    spread = results["over_bases"]
    assert spread["seeds"] == [0, 1, 2]
    for name, value in metrics.summary().items():
        assert results[name] == pytest.approx(value)
        assert spread[name]["min"] <= value <= spread[name]["max"]
    assert spread["mIoU"]["std"] > 0
    assert (folder / "confusion.png").stat().st_size > 1000
    table = (folder / "evaluation.csv").read_text().splitlines()
    assert len(table) == 1 + len(get_spec("shapes").classes) + 1


def test_plan_and_pace_are_logged(make_config, variables, caplog):
    with caplog.at_level("INFO"):
        evaluate(make_config(), variables)
    text = caplog.text
    assert "10 images in 2 batches" in text
    assert "is compiled for 1 input size: 96x128" in text
    assert "evaluate 2/2  images/s" in text and "ETA 0:00" in text


PROCESS = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
from segnext_jax import config, main
main.main(sys.argv[4:])
"""


@pytest.mark.slow
def test_processes_share_the_images_and_agree(make_config, variables, tmp_path):
    """Two processes of two devices each: every image counted once, written once."""
    import portpicker

    config = make_config("evaluation.boundary_iou=true")
    overrides = [
        f"--config.{field}={','.join(map(str, v)) if isinstance(v, tuple) else v}"
        for field, v in flatten(config)
        if field.startswith(("model.", "data.data_dir")) and v is not None
    ]
    overrides += ["--config.evaluation.batch_size=8", "--mode=evaluate"]
    address = f"localhost:{portpicker.pick_unused_port()}"

    def start(number, count):
        folder = tmp_path / f"process_{number}_of_{count}"
        model_folder.save_model(folder, variables, config_lib.to_json(config))
        return folder, subprocess.Popen(
            [
                *(sys.executable, "-c", PROCESS, address, str(count), str(number)),
                f"--config={ROOT / 'configs' / 'shapes_tiny.py'}",
                f"--workdir={folder}",
                *overrides,
            ],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": ""},
            stderr=subprocess.PIPE,
            text=True,
        )

    results = []
    for count in (1, 2):
        processes = [start(number, count) for number in range(count)]
        for folder, process in processes:
            _, log = process.communicate(timeout=600)
            assert process.returncode == 0, log
            path = folder / "evaluation.csv"
            results.append(path.read_text() if path.exists() else None)
    assert results[0] == results[1] is not None
    assert results[2] is None
