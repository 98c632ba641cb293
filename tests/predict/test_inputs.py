"""No input is left out without a word."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from segnext_jax.datasets import SPECS
from segnext_jax.predict.inputs import find_inputs
from segnext_jax.predict.jobs import Options, plan
from segnext_jax.predict.predictor import read_image
from segnext_jax.predict.run import run

from .stand_in import RedIsClass, files_below, predict, write_image


def names(*words):
    return [str(item.name) for item in find_inputs([str(word) for word in words])]


def test_linked_folders_are_followed(tmp_path):
    photos = tmp_path / "photos"
    write_image(photos / "a.png")
    write_image(tmp_path / "elsewhere" / "b.png")
    (photos / "cam1").symlink_to(tmp_path / "elsewhere")
    (photos / "up").symlink_to(photos)
    assert names(photos) == ["a", "cam1/b"]


def test_photographs_that_are_not_read_are_failures(tmp_path):
    write_image(tmp_path / "in" / "a.png")
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    (tmp_path / "in" / "b.HEIC").write_bytes(heic)
    (tmp_path / "in" / "c.svg").write_text("<svg/>")
    os.mkfifo(tmp_path / "in" / "d.jpg")
    (tmp_path / "in" / "e.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "in" / "f.mp4")
    failures = predict([tmp_path / "in"], tmp_path / "out", formats=("labels",))
    reasons = [failure.reason for failure in failures]
    assert len(reasons) == 5 and files_below(tmp_path / "out") == ["labels/a.png"]
    for part, reason in zip(
        ("a HEIC photograph", "an SVG drawing", "a pipe or a device", "not exist"),
        reasons[:4],
        strict=True,
    ):
        assert part in reason
    assert "f.mp4: must be a regular file" in reasons[4]


def test_gif_is_read_and_other_files_are_named(tmp_path, caplog):
    folder = tmp_path / "in"
    image = write_image(folder / "a.png", num_classes=3)
    Image.fromarray(image).convert("P").save(folder / "b.gif")
    (folder / "notes.txt").write_text("no image")
    with caplog.at_level("INFO"):
        assert names(folder) == ["a", "b"]
    assert f"Neither images nor videos, by their suffix: {folder}/notes.txt." in (
        caplog.text
    )
    assert read_image(folder / "b.gif").shape == image.shape


def test_names_that_differ_in_their_suffix_are_told_what_helps(tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="Rename one, or predict") as error:
        predict([tmp_path], tmp_path / "out")
    for suffix in (".png", ".jpg"):  # What it advises works.
        assert f"'{tmp_path}/*{suffix}'" in str(error.value)
        assert predict([f"{tmp_path}/*{suffix}"], tmp_path / suffix[1:]) == []


def test_the_missing_rest_of_a_video_is_a_failure(tmp_path):
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (66, 49))
    for value in range(40):
        writer.write(np.full((49, 66, 3), value, np.uint8))
    writer.release()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    network = RedIsClass(SPECS["camvid"])
    options = Options(tmp_path / "out", formats=("labels",))
    parts = list(plan(find_inputs([str(path)]), options, network.spec))
    (failure,) = run(network, parts, options).failures
    num_frames = len(files_below(tmp_path / "out"))
    assert 5 < num_frames < 30
    assert f"only {num_frames} of 40 frames can be decoded" in failure.reason


def test_names_that_are_not_utf_8_are_refused(tmp_path):
    try:
        open(os.fsencode(tmp_path) + b"/a\xe9.jpg", "wb").close()
    except OSError:
        pytest.skip("this file system has no other names than UTF-8")
    for word in (str(tmp_path), f"{tmp_path}/*.jpg", f"{tmp_path}/a\udce9.jpg"):
        with pytest.raises(ValueError, match="names of files must be UTF-8"):
            find_inputs([word])


def test_what_is_no_image_is_refused_in_one_sentence(tmp_path):
    missing = r"must be a file: .*nope\.jpg does not exist"
    with pytest.raises(FileNotFoundError, match=missing):
        read_image(tmp_path / "nope.jpg")
    with pytest.raises(ValueError, match="must be a regular file"):
        read_image(tmp_path)
