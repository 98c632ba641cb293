"""Load `data/<set>/prepare.py`, write tiny trees and archives, read what comes out."""

import importlib.util
import pathlib
import tarfile
import types
import zipfile

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from segnext_jax.images.decode import decode_label, encode_label
from segnext_jax.pipeline import open_source
from segnext_jax.preparation.command import main

ROOT = pathlib.Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


def load_prepare(name: str) -> types.ModuleType:
    path = ROOT / "data" / name / "prepare.py"
    spec = importlib.util.spec_from_file_location(f"{name}_prepare", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_image(path: pathlib.Path, size=(7, 9), seed: int = 0) -> None:
    """Write noise; JPEG or PNG by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    _, encoded = cv2.imencode(".png" if path.suffix == ".png" else ".jpg", image)
    path.write_bytes(encoded.tobytes())


def write_mask(path: pathlib.Path, ids, size=(7, 9), seed: int = 0) -> None:
    """Write a grey PNG with the given ids, each of them at least once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.array(list(ids), np.uint8)
    mask = np.random.default_rng(seed).choice(ids, size)
    mask.ravel()[: len(ids)] = ids[: mask.size]
    path.write_bytes(encode_label(mask))


def pack(tree: pathlib.Path, archive: pathlib.Path) -> None:
    """Pack what is in a folder into a zip, tar or tgz."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(tree.rglob("*")):
                file.write(path, path.relative_to(tree))
        return
    mode = "w" if archive.suffix == ".tar" else "w:gz"
    with tarfile.open(archive, mode) as file:
        for path in sorted(tree.iterdir()):
            file.add(path, path.name)


def read_split(spec, split: str, data_dir: pathlib.Path) -> list[dict]:
    """Return the prepared examples with decoded labels."""
    source = open_source(spec, split, data_dir)
    examples = [source[i] for i in range(len(source))]
    return [{**x, "label": decode_label(x["label"])} for x in examples]


def read_records(folder: pathlib.Path, split: str) -> list[dict]:
    """Return the prepared examples of any features, photographs not decoded."""
    source = tfds.builder_from_directory(folder).as_data_source(
        split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    return [source[i] for i in range(len(source))]


def decode(folder: pathlib.Path, name: str) -> np.ndarray:
    """Return the numbers in a mask's file, by Pillow: palettes stay indices."""
    with Image.open(folder / f"{name}.png") as image:
        return np.array(image)


@pytest.fixture(scope="session")
def preparing() -> types.SimpleNamespace:
    """The functions of this file, for tests in the same folder."""
    return types.SimpleNamespace(
        load=load_prepare,
        main=main,
        write_image=write_image,
        write_mask=write_mask,
        pack=pack,
        decode=decode,
        read_split=read_split,
        read_records=read_records,
    )


def shared(path: str) -> pathlib.Path:
    folder = SHARED / path
    if not folder.exists():
        pytest.skip(f"needs ../shared/data/{path}; the generated trees stand in")
    return folder


@pytest.fixture(scope="session")
def shared_data():
    """The developers' folder of real samples, or a skip."""
    return shared
