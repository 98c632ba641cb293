"""A small network of CamVid's classes."""

import pytest

import segnext_jax
from segnext_jax import config as config_lib
from segnext_jax.checkpoints import model_folder
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt


@pytest.fixture(scope="session")
def config(tiny_network):
    scale = ("evaluation.scale=64,48", "evaluation.size_multiple=16")
    # Traced and compiled in half the time of a CPU's own form.
    return config_lib.load(
        "camvid_tiny", [*tiny_network, *scale, "model.depthwise=grouped"]
    )


@pytest.fixture(scope="session")
def folder(config, tmp_path_factory):
    variables = initialize(SegNeXt.from_config(config.model, 11), seed=0)
    path = tmp_path_factory.mktemp("models") / "tiny"
    model_folder.save_model(path, variables, config_lib.to_json(config))
    return path


@pytest.fixture(scope="session")
def model(folder):
    return segnext_jax.load(folder)
