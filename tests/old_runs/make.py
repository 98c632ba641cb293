"""Make what a version of the code leaves behind: `make.py TARGET`, from its checkout.

Written into TARGET (see README.md): the two files of a user's configuration, the run of
8 steps whose last checkpoint is taken away, the model folder of the checkpoint of step
6, and the numbers that this version gives for them.
"""

import json
import pathlib
import shutil
import sys
import tarfile

import numpy as np
from PIL import Image

CLASSES = {"sky": (0, 0, 255), "field": (0, 255, 0), "house": (255, 0, 0)}
OVERRIDES = ("data.mask_values=colours", "evaluation.scale=96,48")

FILES = {
    "mine.py": '''"""A user's own network."""

from segnext_jax.config import base_config


def get_config():
    config = base_config()
    config.batch_size = 8
    config.num_steps = 8
    config.eval_every = 2
    config.checkpoint_every = 2
    config.keep_checkpoints = 3
    config.data.name = "folder"
    config.data.crop_size = (32, 32)
    config.data.base_scale = (64, 48)
    config.data.num_workers = 0
    config.model.variant = "tiny"
    config.model.embed_dims = (4, 4, 4, 4)
    config.model.depths = (1, 1, 1, 1)
    config.model.mlp_ratios = (1, 1, 1, 1)
    config.model.head_channels = 32
    config.model.rank = 2
    config.model.frozen_stages = 3
    config.optimizer.momentum_dtype = "bfloat16"
    config.optimizer.warmup_steps = 1
    config.evaluation.batch_size = 8
    config.evaluation.num_overlays = 0
    return config
''',
    "mine_fast.py": '''"""The same with a higher learning rate."""

from segnext_jax.config import start_from


def get_config():
    config = start_from(__file__, "mine.py")
    config.optimizer.learning_rate = 1e-1
    config.optimizer.head_lr_multiplier = 1.0
    return config
''',
}


def draw_folder(folder: pathlib.Path) -> None:
    """Draw 16 photographs and masks for training and 8 for validation."""
    for split, numbers in {"train": range(16), "val": range(16, 24)}.items():
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for number in numbers:
            image, mask = _draw(number)
            Image.fromarray(image).save(folder / "images" / split / f"{number}.png")
            Image.fromarray(mask).save(folder / "masks" / split / f"{number}.png")
    lines = [f"{name} {r} {g} {b}" for name, (r, g, b) in CLASSES.items()]
    (folder / "classes.txt").write_text("\n".join(lines) + "\n")


def _draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = 40, 56
    labels = np.zeros((height, width), np.uint8)
    labels[12 + number % 14 :] = 1
    left = 5 * number % 30
    labels[10 : 18 + number % 12, left : left + 20] = 2
    colours = np.array(list(CLASSES.values()), np.uint8)
    tints = np.array([(90, 150, 210), (70, 120, 60), (150, 90, 70)])
    rows, columns = np.mgrid[:height, :width]
    texture = (rows * (7 + number) + columns * 13 + rows * columns) % 41
    image = tints[labels] + texture[..., None] - 20 + 3 * (number % 9)
    return image.clip(0, 255).astype(np.uint8), colours[labels]


def photograph() -> np.ndarray:
    """Return the normalised image whose logits are noted, [1, 32, 64, 3]."""
    grid = np.arange(32 * 64 * 3, dtype=np.float32).reshape(1, 32, 64, 3)
    return np.sin(grid / 7)


def main(target: pathlib.Path) -> None:
    """Write it all."""
    import segnext_jax
    from segnext_jax import main as program
    from segnext_jax.convert import folder as converted

    data = target / "data"
    draw_folder(data)
    for name, text in FILES.items():
        (target / name).write_text(text)
    run = target / "run"
    arguments = [f"--config={target / 'mine_fast.py'}", f"--workdir={run}"]
    arguments += [f"--config.{text}" for text in OVERRIDES]
    arguments += [f"--config.data.folder={data}"]
    program.main(arguments)
    end = json.loads((run / "evaluation.json").read_text())
    losses = {
        line["step"]: line["loss"]
        for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        if "loss" in line
    }
    shutil.rmtree(run / "checkpoints" / "8")
    scores = json.loads((run / "scores.json").read_text())
    del scores["8"]
    (run / "scores.json").write_text(json.dumps(scores))
    for path in list(run.iterdir()):
        if path.name not in ("checkpoints", "scores.json", "config.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    variables, config = converted.read(run)
    converted.write(target / "model", variables, config)
    logits = np.asarray(segnext_jax.load(run).logits(photograph()))
    numbers = {
        "logits of step 6": logits[0, ::2, ::2].round(6).tolist(),
        "mIoU by step": {**scores, "8": end["mIoU"]},
        "losses": losses,
        "evaluation of step 8": {name: end[name] for name in ("mIoU", "mAcc", "aAcc")},
    }
    (target / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")
    shutil.rmtree(data)
    with tarfile.open(target / "old.tar.xz", "w:xz", preset=9) as archive:
        for name in ("run", "model", *FILES):
            archive.add(target / name, name)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
