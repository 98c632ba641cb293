r"""Show on a CPU that pre-training helps: CamVid's patches first, then CamVid itself.

    python data/camvid/prepare.py --data_dir=DATA
    python benchmarks/pretraining_demo.py --data_dir=DATA --workdir=runs/demo

Cuts patches out of CamVid whose middle shows one class, writes them as ImageNet has its
photographs (train/CLASS/*.png from the train split, val/ from val), trains the encoder
to name the class, then trains the segmentation twice with the same seed: from random
weights and from this encoder. Prints the commands of the three runs and their results.
The encoder has SegNeXt-T's widths and fewer blocks.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import cv2
import numpy as np

from segnext_jax.datasets import SPECS, DatasetSpec
from segnext_jax.pipeline import open_source
from segnext_jax.pipeline.transforms import decode_pair

ROOT = pathlib.Path(__file__).parents[1]
# Side of a patch, distance of one from the next, side of its middle, in pixels.
PATCH, STRIDE, MIDDLE = 64, 16, 16
# Share of the middle that its class covers.
MIN_SHARE = 0.8
MAX_PER_CLASS = {"train": 300, "val": 60}
NETWORK = ("model.variant=tiny", "model.depths=1,1,2,1", "model.drop_path_rate=0.0")


def cut_patches(spec: DatasetSpec, data_dir: str, folder: pathlib.Path) -> dict:
    """Write the patches of both splits; return their numbers by split and class.

    Args:
      spec: The data set.
      data_dir: Folder of prepared data sets.
      folder: Is made.
    """
    numbers = {}
    for split, limit in MAX_PER_CLASS.items():
        source = open_source(spec, split, data_dir)
        places = [p for i in range(len(source)) for p in find_patches(spec, source, i)]
        np.random.default_rng(0).shuffle(places)
        chosen: dict[int, list] = {label: [] for label in range(spec.num_classes)}
        for label, index, row, column in places:
            if len(chosen[label]) < limit:
                chosen[label].append((index, row, column))
        for label, patches in chosen.items():
            below = folder / split / spec.classes[label]
            below.mkdir(parents=True)
            for index, row, column in patches:
                image, _ = decode_pair(source[index])
                patch = image[row : row + PATCH, column : column + PATCH]
                path = below / f"{index:04d}_{row}_{column}.png"
                cv2.imwrite(str(path), patch[..., ::-1])
        numbers[split] = {spec.classes[k]: len(v) for k, v in chosen.items()}
    return numbers


def find_patches(spec: DatasetSpec, source, index: int) -> list[list[int]]:
    """Return [class, image, row, column] of each patch whose middle shows one class."""
    _, labels = decode_pair(source[index])
    margin = (PATCH - MIDDLE) // 2
    found = []
    for row in range(0, labels.shape[0] - PATCH + 1, STRIDE):
        for column in range(0, labels.shape[1] - PATCH + 1, STRIDE):
            top, left = row + margin, column + margin
            middle = labels[top : top + MIDDLE, left : left + MIDDLE]
            counts = np.bincount(middle.ravel(), minlength=256)[: spec.num_classes]
            if counts.max() >= MIN_SHARE * middle.size:
                found.append([int(counts.argmax()), index, row, column])
    return found


def run(config: str, workdir: pathlib.Path, *overrides: str) -> dict:
    """Run the main job; return what its evaluation says."""
    command = [
        *("-m", "segnext_jax.main", f"--config=configs/{config}.py"),
        *(f"--workdir={workdir}", *(f"--config.{field}" for field in overrides)),
    ]
    sys.stdout.write(f"python {' '.join(command)}\n")
    sys.stdout.flush()
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT)
    return json.loads((workdir / "evaluation.json").read_text())


def main() -> None:
    """Cut, pre-train, train twice, print."""
    parser = argparse.ArgumentParser(description="Pre-training against none.")
    parser.add_argument("--data_dir", required=True, help="holds the prepared camvid")
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--pretraining_steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    workdir = options.workdir.absolute()
    patches = workdir / "patches"
    if not patches.exists():
        numbers = cut_patches(SPECS["camvid"], options.data_dir, patches)
        sys.stdout.write(f"{json.dumps(numbers)}\n")
    on_cpu = ("data.num_workers=0", "data.num_threads=2", *NETWORK)

    pretrained = run(
        "imagenet_tiny",
        workdir / "pretrained",
        *on_cpu,
        "data.name=folder",
        f"data.folder={patches}",
        "data.crop_size=64,64",
        # Mean and deviation of the segmentation that follows.
        "data.mean=123.675,116.28,103.53",
        "data.std=58.395,57.12,57.375",
        "classification.area_range=0.4,1.0",
        # A short run of a small network: little that makes it harder.
        "classification.mixup_alpha=0.0",
        "classification.cutmix_alpha=0.0",
        "classification.augment_operations=1",
        "batch_size=32",
        f"num_steps={options.pretraining_steps}",
        "eval_every=10000",
        "optimizer.learning_rate=2e-3",
        f"optimizer.warmup_steps={options.pretraining_steps // 10}",
        f"optimizer.cooldown_steps={options.pretraining_steps // 20}",
        "evaluation.batch_size=60",
    )
    results = {}
    for name, start in (("random", ""), ("pretrained", workdir / "pretrained")):
        results[name] = run(
            "camvid_tiny",
            workdir / f"camvid_{name}",
            *on_cpu,
            f"init_from={start}",
            f"data.data_dir={options.data_dir}",
            "data.crop_size=128,160",
            "data.scale_range=0.75,1.5",
            "batch_size=4",
            f"num_steps={options.steps}",
            "eval_every=10000",
            "optimizer.learning_rate=1e-3",
            "optimizer.head_lr_multiplier=1.0",
            f"optimizer.warmup_steps={options.steps // 10}",
            "evaluation.batch_size=4",
            "evaluation.num_overlays=0",
        )
    sys.stdout.write(f"top1 of pre-training: {pretrained['top1']:.3f}\n")
    for name, result in results.items():
        sys.stdout.write(f"mIoU of CamVid from {name}: {result['mIoU']:.4f}\n")


if __name__ == "__main__":
    main()
