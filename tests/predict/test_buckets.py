"""Predictions of what lies in a bucket, into the bucket."""

import cv2
import numpy as np
import pytest

from segnext_jax.cli import storage
from segnext_jax.datasets import SPECS

from .stand_in import RedIsClass, files_below, predict, write_image


class Killed(RedIsClass):
    """Fails at its second batch."""

    def predict_batch(self, images, has_probabilities=False, fitted=None):
        if self.batches:
            raise KeyboardInterrupt
        return super().predict_batch(images, has_probabilities, fitted)


@pytest.fixture
def photos(bucket, tmp_path):
    """Five photographs here, and the same in a bucket."""
    folder, address = tmp_path / "photos", storage.as_path(f"{bucket}/photos")
    for name in ("a.png", "b.png", "c/d.png", "c/e.png", "f.png"):
        write_image(folder / name, sum(map(ord, name)))
    (folder / "list.txt").write_text("one that is no photograph\n")
    files = {name: folder / name for name in files_below(folder)}
    storage.upload(address, files)
    return folder, address


def contents(folder):
    if storage.is_bucket(folder):
        return {name: (folder / name).read_bytes() for name in storage.listed(folder)}
    return {name: (folder / name).read_bytes() for name in files_below(folder)}


def test_outputs_are_those_of_local_files(photos, bucket, tmp_path):
    folder, address = photos
    output = storage.as_path(f"{bucket}/out")
    formats = ("labels", "overlay", "voc")
    spec = "voc2012"
    assert predict([folder], tmp_path / "out", spec, formats=formats) == []
    assert predict([address], output, spec, formats=formats) == []
    ours, theirs = contents(tmp_path / "out"), contents(output)
    tar = "voc.tar"  # Holds times.
    assert ours.keys() == theirs.keys() and len(ours.pop(tar)) == len(theirs.pop(tar))
    assert ours == theirs
    pattern = predict([address / "*" / "*.png"], output / "some", formats=("labels",))
    assert pattern == [] and storage.listed(output / "some") == [
        "labels/c/d.png",
        "labels/c/e.png",
    ]
    with pytest.raises(ValueError, match=f"{output}/labels/a.png exists. Choose"):
        predict([address], output, spec, formats=formats)


def test_a_killed_prediction_of_a_list_goes_on(photos, bucket, tmp_path):
    folder, address = photos
    options = {"formats": ("labels", "table"), "container": "tar", "part_size": 2}
    options |= {"batch_size": 1, "is_list": True}
    names = [name for name in files_below(folder) if name.endswith(".png")]
    listed = address / "names.txt"
    storage.write(listed, "".join(f"{address / name}\n" for name in names).encode())
    output = storage.as_path(f"{bucket}/out")
    with pytest.raises(KeyboardInterrupt):
        predict(str(listed), output, network=Killed(SPECS["camvid"]), **options)
    left = set(storage.listed(output))
    for target in (output, storage.as_path(f"{bucket}/unbroken")):
        found = predict(str(listed), target, existing="skip", **options)
        assert found.num_inputs == 5 and found.failures == []
    done, unbroken = contents(output), contents(target)
    assert left < done.keys() == unbroken.keys()
    key = str(address).partition("://")[2].encode()
    tar = done["tar/00000-of-00001-000000.tar"]
    assert key.rpartition(b"/")[0] in tar and b"a.labels.png" in tar
    manifest = "manifests/00000-of-00001.jsonl"
    assert done[manifest].splitlines()[1:] == unbroken[manifest].splitlines()[1:]


def test_a_video_becomes_a_video(bucket, tmp_path):
    path, address = tmp_path / "film.avi", storage.as_path(bucket)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (66, 49))
    for _ in range(3):
        writer.write(np.full((49, 66, 3), 3, np.uint8))
    writer.release()
    storage.upload(address, {"film.avi": path})
    formats = ("overlay", "labels")
    assert predict([address / "film.avi"], address / "out", formats=formats) == []
    assert predict([path], tmp_path / "out", formats=formats) == []
    assert contents(address / "out") == contents(tmp_path / "out")
