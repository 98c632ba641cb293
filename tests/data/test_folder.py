import importlib.util
import io
import pathlib

import cv2
import numpy as np
import pytest
from PIL import Image

from segnext_jax.config import base_config
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.images.decode import encode_label
from segnext_jax.pipeline import open_split

ROOT = pathlib.Path(__file__).parents[2]
COLOURS = ((10, 20, 30), (200, 100, 0), (255, 255, 255))


def load_program():
    path = ROOT / "data" / "folder" / "prepare.py"
    module_spec = importlib.util.spec_from_file_location("folder_prepare", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


main = load_program().main


def write_folder(root: pathlib.Path, encode) -> None:
    """Write three training pairs and a validation pair, drawn from ids 0..2."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1)):
        for kind in ("images", "masks"):
            (root / kind / split / "nested").mkdir(parents=True)
        for k in range(count):
            image = rng.integers(0, 256, (9 + k, 12, 3), np.uint8)
            path = root / "images" / split / "nested" / f"{k}.webp"
            Image.fromarray(image).save(path, lossless=True)
            ids = rng.integers(0, 3, (9 + k, 12)).astype(np.uint8)
            ending, mask = encode(ids)
            (root / "masks" / split / "nested" / f"{k}{ending}").write_bytes(mask)
    lines = [
        "# id order",
        "field {} {} {}".format(*COLOURS[0]),
        "farm track {} {} {}".format(*COLOURS[1]),
        "ignore {} {} {}".format(*COLOURS[2]),
    ]
    (root / "classes.txt").write_text("\n".join(lines))


def colour_tiff(ids):
    file = io.BytesIO()
    Image.fromarray(np.array(COLOURS, np.uint8)[ids]).save(file, "TIFF")
    return ".tif", file.getvalue()


def shifted_png(ids):
    return ".png", encode_label((ids + 1) % 3)


def wide_png(ids):
    raw = np.array([40, 7, 99], np.uint16)[ids]
    return ".png", cv2.imencode(".png", raw)[1].tobytes()


@pytest.mark.parametrize(
    ("encode", "arguments", "fields"),
    [
        (colour_tiff, ["--mask_values=colours"], {"mask_values": "colours"}),
        (shifted_png, ["--zero_is_ignore"], {"zero_is_ignore": True}),
        (
            wide_png,
            ["--id_map=40:0,7:1,99:255"],
            {"id_map": ((40, 0), (7, 1), (99, 255))},
        ),
    ],
)
def test_prepared_and_direct_give_the_same(encode, arguments, fields, tmp_path, capsys):
    write_folder(tmp_path / "raw", encode)
    arguments = [f"--raw_dir={tmp_path}/raw", "--name=my_set", *arguments]
    assert main([*arguments, f"--data_dir={tmp_path}/prepared"]) == 0
    assert "my_set/1.0.0: 3 train, 1 val." in capsys.readouterr().out

    data = base_config().data
    data.name, data.data_dir = "my_set", f"{tmp_path}/prepared"
    spec = resolve_spec(data)
    assert spec.classes == ("field", "farm track") and spec.colours == COLOURS[:2]
    prepared = open_split(data, spec, "train")

    data.name, data.folder = "folder", f"{tmp_path}/raw"
    for field, value in fields.items():
        data[field] = value
    direct = open_split(data, resolve_spec(data), "train")
    assert len(prepared) == len(direct) == 3
    rng = np.random.default_rng(0)
    for k in range(3):
        rng.integers(0, 256, (9 + k, 12, 3), np.uint8)
        expected = np.array([0, 1, 255])[rng.integers(0, 3, (9 + k, 12))]
        np.testing.assert_array_equal(direct[k]["label"], expected)
        assert prepared[k]["label"] == encode_label(direct[k]["label"])
        assert prepared[k]["image"] == direct[k]["image"]
        assert prepared[k]["image_id"] == direct[k]["image_id"] == f"nested/{k}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name=camvid"], "--name must be new: 'camvid' is a name of segnext_jax"),
        (["--name=My set"], "lower-case letters"),
        (["--name=a", "--id_map=1:0;2:1"], 'as "7:0,8:1,0:255": got'),
        (["--name=a", "--id_map=1:0,1:1"], "different ids"),
        (["--name=a", "--classes=/nowhere.txt"], "/nowhere.txt does not exist"),
        (["--name=a", "--raw_dir=/nowhere"], "/nowhere/classes.txt does not exist"),
        (["--name=a"], "nested/0.png: label ids must lie in [0, 1]"),
    ],
)
def test_refusals_are_one_sentence(arguments, message, tmp_path, capsys):
    write_folder(tmp_path / "raw", lambda ids: (".png", encode_label(ids + 7)))
    arguments = [f"--raw_dir={tmp_path}/raw", *arguments]
    assert main([*arguments, f"--data_dir={tmp_path}/prepared"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error


def test_a_folder_without_splits_is_prepared_as_it_is_read(tmp_path):
    write_folder(tmp_path, lambda ids: (".png", encode_label(ids % 2)))
    for kind in ("images", "masks"):
        for split in ("train", "val"):
            (tmp_path / kind / split).rename(tmp_path / kind / f"part_{split}")
    assert main([f"--raw_dir={tmp_path}", "--name=a", f"--data_dir={tmp_path}/p"]) == 0
    data = base_config().data
    data.name, data.folder = "folder", str(tmp_path)
    spec = resolve_spec(data)
    direct = [open_split(data, spec, split) for split in ("train", "val")]
    data.name, data.data_dir = "a", f"{tmp_path}/p"
    for source, size, split in zip(direct, (3, 1), ("train", "val"), strict=True):
        prepared = open_split(data, resolve_spec(data), split)
        assert len(source) == len(prepared) == size
        for k in range(size):
            assert source[k]["image_id"] == prepared[k]["image_id"]
