"""The code of docs/encoder.md does what the page says."""

import pathlib
import re

import jax
import numpy as np
import pytest

from segnext_jax.convert import files, to_state_dict
from segnext_jax.models import MSCAN, VARIANTS, initialize

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "encoder.md"


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Variables of an encoder, and mscan_t.pth with them in the current folder."""
    monkeypatch.chdir(tmp_path)
    variables = initialize(MSCAN(**VARIANTS["tiny"].encoder_sizes()), seed=3)
    encoder = {name: {"backbone": tree} for name, tree in variables.items()}
    files.write(pathlib.Path("mscan_t.pth"), to_state_dict(encoder), {})
    return variables


def test_code_gives_the_encoder_of_the_file(drawn):
    first, second = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {}
    exec(first, names)
    assert names["encoder"] == MSCAN(**VARIANTS["tiny"].encoder_sizes())
    jax.tree.map(np.testing.assert_array_equal, names["variables"], drawn)
    shapes = [stage.shape for stage in names["stages"]]
    assert shapes == [(1, 24, 32, 32), (1, 12, 16, 64), (1, 6, 8, 160), (1, 3, 4, 256)]
    exec(second, names)
    assert names["network"].variant == VARIANTS["tiny"]
    shapes = jax.tree.map(np.shape, names["variables"])
    assert shapes == jax.tree.map(np.shape, drawn)
