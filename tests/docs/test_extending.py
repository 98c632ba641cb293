"""Each example of docs/extending.md works when its files are added, and costs what
docs/architecture.md says.
"""

import pathlib
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SECTIONS = dict(
    re.findall(
        r"^## (.+?)\n(.*?)(?=^## |\Z)",
        (ROOT / "docs" / "extending.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
)
COSTS = {
    name: int(files)
    for name, files in re.findall(
        r"^\| \[.+?\]\(extending\.md#(\S+)\) \| \d+ \| (\d+) \|",
        (ROOT / "docs" / "architecture.md").read_text(),
        re.MULTILINE,
    )
}

_NETWORK = """
import jax
import jax.numpy as jnp
from segnext_jax.config import base_config
from segnext_jax.models import SegNeXt, initialize
from segnext_jax.training import optimizer

def check(given, num_in_group, group):
    config = base_config()
    config.model.update(
        {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "head_channels": 32}
    )
    config.model.update(given)
    model = SegNeXt.from_config(config.model, num_classes=5)
    variables = initialize(model, seed=0)
    images = jnp.ones((1, 40, 64, 3))
    (draw,) = model.draws().values()
    logits = jax.eval_shape(model.apply, variables, images, draw)
    assert logits.shape == (1, 5, 8, 5), logits.shape
    config.model.frozen_stages = 1
    groups = optimizer.Optimizer.from_config(config).rules
    rules = optimizer.assign(variables["params"], groups)
    names = [rule.name for rule in jax.tree.leaves(rules)]
    assert names.count(group) == num_in_group, names
"""
CHECKS = {
    "Data set": """
import json, pathlib
from segnext_jax.datasets import get_spec
from segnext_jax.pipeline.sources import open_split
from segnext_jax.config import base_config
data = base_config().data
data.name, data.data_dir = "potholes", "prepared"
source = open_split(data, get_spec("potholes"), "train")
import numpy as np
from segnext_jax.images.decode import decode_label
labels = decode_label(source[0]["label"])
assert np.unique(labels).tolist() == [0, 1, 255]
""",
    "Loss": """
import jax.numpy as jnp
from segnext_jax.config import base_config
from segnext_jax.training.objective import Objective
loss = base_config().loss
loss.weights.update({"cross_entropy": 0.0, "jaccard": 2.0})
objective = Objective.from_config(loss, ignore_label=255)
labels = jnp.array([[[0, 1, 1, 255]]])
terms = objective.terms(jnp.zeros((1, 1, 4, 2)), labels, jnp.float32(4))
# Overlap and union of class 0: 1/2 and 1 + 3/2 - 1/2; of class 1: 1 and 2 + 3/2 - 1.
expected = 2 * (1 - (1.5 / 3 + 2 / 3.5) / 2)
assert terms.keys() == {"jaccard"} and abs(terms["jaccard"] - expected) < 1e-6, terms
""",
    "Decoder head": _NETWORK
    + """
check({"head": "fpn"}, 3 * 3 + 2, "head")
""",
    "Encoder": _NETWORK
    + """
check({"encoder": "plain"}, 2 * 2 + 2, "frozen")
""",
    "Augmentation": """
import cv2, numpy as np
from segnext_jax.config import base_config
from segnext_jax.datasets import get_spec
from segnext_jax.pipeline.transforms import RandomScaleCropFlip
data = base_config().data
data.update({"crop_size": (6, 8), "base_scale": (8, 6), "scale_range": (1.0, 1.0)})
data.update({"flip_probability": 0.0, "max_class_share": 1.0})
image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
example = {
    "image": cv2.imencode(".png", image[..., ::-1])[1].tobytes(),
    "label": np.arange(48, dtype=np.uint8).reshape(6, 8) % 7,
    "image_id": "a",
}
crops = []
for data.upside_down_probability in (0.0, 1.0):
    transform = RandomScaleCropFlip.from_config(data, get_spec("shapes"))
    crops.append(transform(example, np.random.default_rng(0)))
np.testing.assert_array_equal(crops[0]["image"], image)
for name in ("image", "label"):
    np.testing.assert_array_equal(crops[1][name], crops[0][name][::-1])
""",
    "Output format": """
import io, numpy as np
from segnext_jax.datasets import get_spec
from segnext_jax.predict import files, jobs
assert "areas" in jobs.FORMATS
text = io.BytesIO()
image = np.zeros((3, 2, 3), np.uint8)
file = files.begin("areas", text, image, get_spec("shapes"), files.FileOptions())
file.write(np.array([[0, 1], [1, 6]], np.uint8), None)
file.write(np.array([[6, 6]], np.uint8), None)
file.close()
assert text.getvalue().decode() == (
    "ground,1\\ndisc,2\\nsquare,0\\ntriangle,0\\nstar,0\\nring,0\\ncross,3\\n"
)
""",
    "Configuration field": """
import pathlib
from segnext_jax.config import FIELDS, base_config, with_overrides
pathlib.Path("c.py").write_text("")
config = with_overrides(base_config(), ["evaluation.overlay_opacity=0.25"], "c.py")
assert config.evaluation.overlay_opacity == 0.25
assert FIELDS["evaluation.overlay_opacity"].fault_of(2.0)
""",
}


def add(section: str, tree: pathlib.Path) -> set[str]:
    """Add the files of a section to a copy of the repository; return their paths."""
    text = SECTIONS[section]
    added = re.findall(
        r'^(`{3,})\w+ title="(\S+)"\n(.*?)^\1$', text, re.DOTALL | re.MULTILINE
    )
    for _, path, content in added:
        assert not (ROOT / path).exists(), f"{path} is there already"
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    (changes,) = re.findall(r"^```diff\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    applied = subprocess.run(
        ["git", "apply", "-C1", "-"],
        input=changes,
        cwd=tree,
        text=True,
        capture_output=True,
    )
    assert applied.returncode == 0, (
        f"{applied.stderr}The files have changed: write the example of "
        f"docs/extending.md, {section!r}, anew."
    )
    changed = re.findall(r"^\+\+\+ b/(\S+)$", changes, re.MULTILINE)
    return {path for _, path, _ in added} | set(changed)


def run(tree: pathlib.Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tree, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A copy of the package and of data/."""
    for folder in ("segnext_jax", "data"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # The tree is no repository, and must not be taken for a part of one.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


@pytest.fixture
def potholes(tree):
    """What data/potholes/prepare.py of the manual reads."""
    for split in ("train", "val"):
        for folder in ("photos", "masks"):
            (tree / f"raw/{folder}/{split}").mkdir(parents=True)
        mask = np.ones((20, 30), np.uint8)
        mask[0], mask[5:9, 4:20] = 0, 2
        cv2.imwrite(str(tree / f"raw/masks/{split}/a.png"), mask)
        cv2.imwrite(str(tree / f"raw/photos/{split}/a.jpg"), np.dstack([mask] * 3))


@pytest.mark.parametrize("section", CHECKS)
def test_example_works_and_costs_what_the_table_says(section, tree, potholes):
    files = add(section, tree)
    assert len(files) == COSTS[section.lower().replace(" ", "-")], files
    for path in files:
        if path.endswith(".py"):
            compile((tree / path).read_text(), path, "exec")
    if section == "Data set":
        options = ("--raw_dir=raw", "--data_dir=prepared")
        run(tree, "data/potholes/prepare.py", *options)
    run(tree, "-c", CHECKS[section])


def test_each_example_has_a_check_and_a_cost():
    assert list(SECTIONS) == list(CHECKS)
    assert list(COSTS) == [name.lower().replace(" ", "-") for name in CHECKS]
