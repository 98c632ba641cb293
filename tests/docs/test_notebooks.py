"""The notebooks run from top to bottom, hold no outputs, and do what they say."""

import json
import os
import pathlib
import re

import jax
import pytest

NOTEBOOKS = pathlib.Path(__file__).parents[2] / "docs" / "notebooks"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs the cells of a notebook in an empty folder."""
    monkeypatch.chdir(tmp_path)
    root = str(NOTEBOOKS.parents[1])
    monkeypatch.setenv("PYTHONPATH", root)
    # One device for the commands that a notebook starts, as users have it.
    flags = re.sub(r"\S*device_count=\d+", "", os.environ["XLA_FLAGS"])
    monkeypatch.setenv("XLA_FLAGS", flags)

    def run(name: str) -> dict:
        names: dict = {"__name__": "__main__"}
        for cell in json.loads((NOTEBOOKS / name).read_text())["cells"]:
            if cell["cell_type"] == "code":
                assert not cell["outputs"], "outputs are not committed"
                exec(compile("".join(cell["source"]), name, "exec"), names)
        return names

    # As users have it.
    with jax.numpy_rank_promotion("allow"):
        yield run


def test_own_data_are_learnt(run, tmp_path):
    names = run("own_data.ipynb")
    assert names["evaluation"]["mIoU"] > 0.75
    assert sorted(names["result"].class_areas()) == ["box", "disc", "ground"]
    assert (tmp_path / "overlay.jpg").is_file()


def test_head_on_the_encoder_learns_and_operations_equal_what_they_replace(run):
    names = run("encoder.ipynb")
    assert [stage.shape for stage in names["stages"]] == [
        *((2, 16, 24, 8), (2, 8, 12, 16), (2, 4, 6, 16), (2, 2, 3, 24)),
    ]
    first, last = names["losses"][0], sum(names["losses"][-10:]) / 10
    assert last < first / 4
    # Sums of 35 products of about 1.
    assert names["depthwise_difference"] < 2e-5
    assert names["is_equal"]
    assert abs(names["loss"] - names["expected"]) < 1e-5


def test_every_notebook_is_tested():
    found = {path.name for path in NOTEBOOKS.glob("*.ipynb")}
    assert found == {"own_data.ipynb", "encoder.ipynb"}
