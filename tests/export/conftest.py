"""Networks of CamVid's classes whose scores differ from class to class."""

import pathlib

import jax
import numpy as np
import pytest

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import model_folder
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.predict import predictor

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def config(tiny_network):
    path = ROOT / "configs" / "camvid_tiny.py"
    return config_lib.load(
        str(path),
        [*tiny_network, "data.crop_size=32,64", "evaluation.scale=0,0"],
    )


def like_trained(variables, layer_scale):
    """Return weights whose biases and statistics are none that can be left out."""
    rng = np.random.default_rng(0)

    def change(path, value):
        name = jax.tree_util.keystr(path[-1:])
        value = np.asarray(value) * rng.uniform(0.5, 1.5, value.shape)
        if "bias" in name or "mean" in name:
            value = value + rng.normal(0, 0.1, value.shape)
        if "layer_scale" in name:
            value = value * layer_scale
        return value.astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(change, variables)
    # Drawn with deviation 0.01; so that scores spread like a trained network's.
    variables["params"]["decode_head"]["conv_seg"]["kernel"] *= 20
    return variables


@pytest.fixture(scope="session")
def variables(config):
    variables = initialize(SegNeXt.from_config(config.model, 11), seed=0)
    return like_trained(variables, layer_scale=20)


@pytest.fixture(scope="session")
def full_width():
    """Return the function from a variant to its network of 150 classes."""

    def build(variant):
        config = config_lib.load(f"ade20k_{variant}", ["model.depthwise=grouped"])
        variables = initialize(SegNeXt.from_config(config.model, 150), seed=0)
        # More, and the values of 21 blocks and above overflow.
        return predictor.Predictor(like_trained(variables, layer_scale=1), config)

    return build


@pytest.fixture(scope="session")
def checkpoint_dir(config, variables, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    config = config_lib.from_json(config_lib.to_json(config))
    # Compiled in half the time; `network` has the form that files have by default.
    config.model.depthwise = "grouped"
    model_folder.save_model(path, variables, config_lib.to_json(config))
    return path


@pytest.fixture(scope="session")
def network(config, variables):
    return predictor.Predictor(variables, config)
