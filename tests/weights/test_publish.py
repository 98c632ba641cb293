"""A published folder: what is in it, and that it is the same network."""

import hashlib
import json
import shutil
import subprocess

import jax
import numpy as np
import pytest
import yaml
from PIL import Image

import segnext_jax
from segnext_jax import config as config_lib
from segnext_jax import weights
from segnext_jax.cli import command
from segnext_jax.convert import files
from segnext_jax.training import evaluate
from segnext_jax.weights import publish


@pytest.fixture(scope="module")
def published_from(unpack_old, tmp_path_factory):
    """A run of an earlier version, its best checkpoint published with an overlay."""
    old = unpack_old(tmp_path_factory.mktemp("published"))
    overlay = old / "run/overlays/step_0000004/b.png"
    overlay.parent.mkdir(parents=True)
    pixels = np.full((90, 2000, 3), (200, 30, 20), np.uint8)
    Image.fromarray(pixels).save(overlay)
    values = {"step": 4, "mIoU": 0.5095, "mAcc": 0.6, "aAcc": 0.7}
    values["IoU"] = {"sky": 0.9, "field": 0.12345, "house": None}
    values["Acc"] = {"sky": 0.8, "field": 0.5, "house": None}
    (old / "run/evaluation.json").write_text(json.dumps(values))
    arguments = [f"--checkpoint={old / 'run'}", "--which=best"]
    arguments += [f"--output={old / 'shared'}", "--licence=mit"]
    assert command.run(publish.main, arguments) == 0
    return old


@pytest.fixture
def shared(published_from, tmp_path):
    """A copy of what was published."""
    return shutil.copytree(published_from / "shared", tmp_path / "shared")


def test_the_folder_is_the_same_network(shared, old):
    wanted, given = (
        segnext_jax.load(old / "run", which="best"),
        segnext_jax.load(shared),
    )
    assert given.model == wanted.model and given.config.seed == wanted.config.seed
    assert given.spec == wanted.spec
    jax.tree.map(np.testing.assert_array_equal, given.variables, wanted.variables)


def test_the_folder_is_small_hashed_and_tells_nothing_of_the_machine(
    shared, published_from
):
    old = published_from
    names = "README.md SHA256SUMS config.json model.safetensors picture.jpg".split()
    assert sorted(path.name for path in shared.iterdir()) == names
    subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=shared, check=True
    )
    size = (shared / "model.safetensors").stat().st_size
    arrays = files.read(shared / "model.safetensors")
    assert size < sum(array.nbytes for array in arrays.values()) + 30_000
    stored = config_lib.from_json((old / "run/config.json").read_text())
    assert "/" in stored.data.folder
    given = config_lib.from_json((shared / "config.json").read_text())
    assert given.data.folder == "data" and str(old) not in given.to_json()
    with Image.open(shared / "picture.jpg") as picture:
        assert picture.size == (1600, 72)
        assert np.abs(np.array(picture) - (200.0, 30, 20)).max() < 4


def test_the_card_holds_results_classes_and_the_picture(shared):
    text = (shared / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    values = yaml.safe_load(head)
    assert values["license"] == "mit" and values["library_name"] == "segnext_jax"
    (result,) = values["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "mean_iou", "value": 50.95}]
    assert "![what it sees](picture.jpg)" in body
    assert "mIoU 50.95, mAcc 60.00, aAcc 70.00 (validation split" in body
    assert "| field | 12.35 | 50.00 |\n| house | - | - |\n" in body
    digits = hashlib.sha256((shared / "model.safetensors").read_bytes()).hexdigest()
    assert f"`{digits}`" in body and 'segnext_jax.load("shared")' in body


def test_a_changed_file_is_refused_until_its_checksum_is_gone(shared):
    path = shared / "config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match="config.json is not what was published: its"):
        segnext_jax.load(shared)
    (shared / "SHA256SUMS").unlink()
    assert segnext_jax.load(shared).config.seed == 1
    (shared / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="shared cannot be used: .*safetensors must"):
        segnext_jax.load(shared)


def test_damaged_checksums_are_a_refusal(shared):
    path = shared / "SHA256SUMS"
    path.write_bytes(path.read_bytes().replace(b"config.json", b"c\xffnfig.json"))
    with pytest.raises(ValueError, match="is not whole: c.nfig.json is missing"):
        weights.load(shared)


def test_the_folder_is_evaluated_and_named_once(shared, old, old_data):
    with pytest.raises(ValueError, match="is one model, not the checkpoints of a run"):
        weights.load(shared, "best")
    config, stored = evaluate.configure(shared, [f"data.folder={old_data}"])
    metrics = evaluate.evaluate(config, shared, stored=stored)
    assert metrics.summary()["mIoU"] == pytest.approx(0.5095, abs=5e-4)


def test_what_cannot_be_published_is_one_sentence(shared, old, tmp_path, capsys):
    def refusal(*arguments):
        assert command.run(publish.main, arguments) == 1
        return capsys.readouterr().err.splitlines()[-1]

    run = f"--checkpoint={old / 'run'}"
    assert "must be a new folder, or hf://user/name: " in refusal(
        run, f"--output={shared}"
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    target = f"--output={tmp_path / 'mine'}"
    assert "mine holds none. Name another" in refusal(run, target, "--overwrite")
    files.write(tmp_path / "a.npz", {"x": np.zeros(3)}, {})
    found = refusal(f"--checkpoint={tmp_path / 'a.npz'}", f"--output={tmp_path / 'b'}")
    assert "a.npz is a file. Convert it first" in found
    found = refusal(
        run, f"--output={tmp_path / 'b'}", f"--picture={tmp_path / 'a.npz'}"
    )
    assert "--picture must be an image: " in found
    assert not (tmp_path / "b").exists()
    assert "must be hf://user/name" in refusal(run, "--output=hf://name")


def test_without_an_evaluation_the_card_names_the_score_or_says_so(old):
    for which, wanted in (("best", "mIoU 50.95.\n"), ("6", "mIoU 39.10.\n")):
        shutil.rmtree(old / "shared", ignore_errors=True)
        arguments = [f"--checkpoint={old / 'run'}", f"--which={which}"]
        publish.main([*arguments, f"--output={old / 'shared'}"])
        assert wanted in (old / "shared/README.md").read_text()
    publish.main(
        [f"--checkpoint={old / 'model'}", f"--output={old / 'shared'}", "--overwrite"]
    )
    text = (old / "shared/README.md").read_text()
    assert "Not evaluated.\n" in text and "model-index" not in text
