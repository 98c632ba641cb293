"""A small network of CamVid's classes, and its page."""

import threading

import numpy as np
import pytest

from segnext_jax import config as config_lib
from segnext_jax.demo.server import Server
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.predict.predictor import Predictor


@pytest.fixture(scope="session")
def network(tiny_network):
    # Compiled in half the time of a CPU's own form.
    fields = ("evaluation.scale=128,64", "model.depthwise=grouped")
    config = config_lib.load("camvid_tiny", [*tiny_network, *fields])
    variables = initialize(SegNeXt.from_config(config.model, 11), seed=0)
    # Drawn with deviation 0.01; so that scores are those of a trained network.
    kernel = np.asarray(variables["params"]["decode_head"]["conv_seg"]["kernel"])
    variables["params"]["decode_head"]["conv_seg"]["kernel"] = 100 * kernel
    return Predictor(variables, config, step=1500, score=0.4321)


@pytest.fixture
def serve(network):
    """Return the function from options to a server of the network."""
    servers = []

    def start(**options):
        server = Server(network, "runs/mine", **options)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
