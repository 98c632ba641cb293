"""A folder without fault, and the check of it as a user runs it."""

import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from segnext_jax.check_dataset.__main__ import main
from segnext_jax.cli import command
from segnext_jax.images.decode import encode_label

SIZE = (48, 64)
# Scales that suit these images.
FITTING = ("--config.data.base_scale=64,48", "--config.data.crop_size=32,32")


def photograph(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def label_map(seed: int) -> np.ndarray:
    """Blocks of 8 pixels, ids 0..2 and 255."""
    rng = np.random.default_rng(seed)
    ids = np.array([0, 1, 2, 255], np.uint8)
    blocks = rng.choice(ids, (6, 8), p=[0.3, 0.3, 0.3, 0.1])
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def write_mask(path: pathlib.Path, labels: np.ndarray) -> None:
    path.write_bytes(encode_label(labels.astype(np.uint8)))


@pytest.fixture
def folder(tmp_path):
    """Six training and three validation pairs without fault."""
    root = tmp_path / "my_images"
    for split, seeds in (("train", range(6)), ("val", range(6, 9))):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for seed in seeds:
            picture = Image.fromarray(photograph(seed))
            picture.save(root / "images" / split / f"{seed}.png")
            write_mask(root / "masks" / split / f"{seed}.png", label_map(seed))
    (root / "classes.txt").write_text("soil\nleaf\nsky\n")
    return root


@pytest.fixture
def check(folder, tmp_path, capsys):
    """Return a function: check the folder; give back exit code, text and report."""

    def run(*arguments, target=folder):
        output = tmp_path / "report"
        shutil.rmtree(output, ignore_errors=True)
        code = 0
        try:
            options = [f"--output={output}", *FITTING, *arguments]
            code = command.run(main, [str(target), *options])
        except SystemExit as stop:
            code = stop.code
        text, log = capsys.readouterr()
        path = output / "report.json"
        report = json.loads(path.read_text()) if path.exists() else None
        return code, text if report else log, report

    return run


def masks(folder):
    return sorted((folder / "masks").rglob("*.png"))
