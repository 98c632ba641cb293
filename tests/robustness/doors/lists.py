"""Lists of photographs, as `check_dataset` and training read a folder."""

import os
from pathlib import Path

import cv2
import numpy as np

from segnext_jax.check_dataset.__main__ import main
from segnext_jax.images.decode import encode_label
from tests.robustness import mutations
from tests.robustness.case import Case
from tests.robustness.texts import encoded, line_of_noise

_NAMES = ("a/1", "a/2", "b", "c.v1")


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write a folder with lists, one of them malformed, or with odd files."""
    root = folder / "set"
    for number, name in enumerate((*_NAMES, "val")):
        _write_pair(root, name, number)
    (root / "classes.txt").write_text("x\ny\n")
    (root / "val.txt").write_text("val\n")
    lines = list(_NAMES)
    choice = int(rng.integers(9))
    what, is_wrong = "as it should be", False
    if choice == 0:
        prefix = str(rng.choice(["images/", "./", "/data/set/images/", "images\\"]))
        lines = [prefix + line for line in lines]
        what, is_wrong = f"with {prefix}", True
    elif choice == 1:
        lines = [f"{line}.jpg {line}.png" for line in lines]
        what, is_wrong = "with masks", True
    elif choice == 2:
        lines.append(line_of_noise(rng))
        what = f"with {lines[-1][:40]!r}"
    elif choice == 3:
        lines.append(lines[0])
        what, is_wrong = "one twice", True
    elif choice == 4:
        lines += ["absent"] * int(rng.choice([1, 10**5]))
        what, is_wrong = "with absent ones", True
    elif choice == 5:
        path = root / "images" / str(rng.choice(["d.jpg", "a/d.jpg"]))
        make = [os.mkfifo, Path.mkdir, lambda p: p.symlink_to("/dev/zero")]
        make += [lambda p: p.symlink_to("nowhere"), lambda p: p.symlink_to(p)]
        index = int(rng.integers(len(make)))
        make[index](path)
        what, is_wrong = f"an odd file {index}", index != 1
    elif choice == 6:
        (root / "images" / "a" / "up").symlink_to(root / "images")
        what = "with a link upwards"
    data, how = encoded(rng, lines)
    if choice == 7:
        how, data = mutations.mutate(rng, data)
    elif choice == 8:
        how, data, is_wrong = "a binary file", b"\x89PNG\r\n\0\1" + rng.bytes(200), True
    (root / "train.txt").write_bytes(data)
    arguments = [str(root), f"--output={folder / 'report'}", "--threads=1"]
    return Case(f"{what}, {how}", lambda: main(arguments), is_wrong)


def _write_pair(root: Path, name: str, number: int) -> None:
    for kind in ("images", "masks"):
        (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
    photo = np.full((6, 8, 3), 10 * number, np.uint8)
    encoded = cv2.imencode(".jpg", photo)[1].tobytes()
    (root / "images" / f"{name}.jpg").write_bytes(encoded)
    labels = np.arange(48, dtype=np.uint8).reshape(6, 8) // 24
    (root / "masks" / f"{name}.png").write_bytes(encode_label(labels))
