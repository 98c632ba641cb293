"""A small network of CamVid's classes whose scores differ from class to class."""

import pathlib

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


@pytest.fixture(scope="session")
def variables(config):
    variables = initialize(SegNeXt.from_config(config.model, 11), seed=0)
    # Drawn with deviation 0.01; so that scores spread like a trained network's.
    variables["params"]["decode_head"]["conv_seg"]["kernel"] *= 20
    return variables


@pytest.fixture(scope="session")
def checkpoint_dir(config, variables, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    model_folder.save_model(path, variables, config_lib.to_json(config))
    return path


@pytest.fixture(scope="session")
def network(config, variables):
    return predictor.Predictor(variables, config)
