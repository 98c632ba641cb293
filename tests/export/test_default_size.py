"""The size of an export that names none."""

import numpy as np
import pytest
from PIL import Image

from segnext_jax.config import base_config
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.export.default_size import default_size


def size_of(**fields):
    config = base_config()
    with config.unlocked():
        config.update_from_flattened_dict(
            {name.replace("__", "."): value for name, value in fields.items()}
        )
    return default_size(config, resolve_spec(config.data), 32)


@pytest.mark.parametrize(
    "name, fields, size",
    [
        ("ade20k", {}, (512, 704)),
        ("camvid", {"evaluation__scale": (0, 0)}, (384, 480)),
        ("camvid", {"evaluation__scale": (256, 256)}, (192, 256)),
        ("cityscapes", {"evaluation__scale": (2048, 1024)}, (1024, 2048)),
        # Cityscapes evaluates at any size; the program takes multiples of 32.
        ("voc2012", {"evaluation__size_multiple": 1}, (512, 704)),
    ],
)
def test_evaluation_of_the_sets_photograph(name, fields, size):
    given, origin = size_of(data__name=name, **fields)
    assert given == size
    assert f"the usual photograph of {name}" in origin


def test_windows_of_evaluation():
    fields = {"evaluation__mode": "slide", "evaluation__window": (512, 1000)}
    assert size_of(**fields) == ((512, 1024), "evaluation's windows")


def test_most_frequent_photograph_of_a_folder(tmp_path):
    (tmp_path / "classes.txt").write_text("ground\nsky\n")
    for kind in ("images", "masks"):
        (tmp_path / kind / "train").mkdir(parents=True)
    # The first two lie on their side.
    turned = Image.Exif()
    turned[0x0112] = 6
    for number, (shape, exif) in enumerate(
        [((300, 200), turned), ((300, 200), turned), ((100, 100), Image.Exif())]
    ):
        image = Image.fromarray(np.zeros((*shape, 3), np.uint8))
        image.save(tmp_path / "images" / "train" / f"{number}.jpg", exif=exif)
        mask = Image.fromarray(np.zeros(shape, np.uint8))
        mask.save(tmp_path / "masks" / "train" / f"{number}.png")
    fields = {"evaluation__scale": (0, 0), "data__name": "folder"}
    size, origin = size_of(**fields, data__folder=str(tmp_path))
    assert size == (224, 320)
    assert origin == f"evaluation's for most photographs of {tmp_path}, 200x300"


@pytest.mark.parametrize("folder", ["/nowhere", "", "no_pairs"])
def test_folder_is_not_at_hand_where_the_network_is_exported(
    folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no_pairs").mkdir()
    fields = {"evaluation__scale": (0, 0), "data__name": "folder"}
    classes = {"data__folder": folder, "data__classes": ("ground", "sky")}
    size, origin = size_of(**fields, **classes)
    assert size == (480, 640)
    assert origin == "evaluation's for a usual photograph, 480x640"
