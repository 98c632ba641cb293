"""Images per second of the training pipeline, against what bounds it.

    python -m benchmarks.input_pipeline --rounds=11

Times are processor time, all threads together, so that they are per core and other work
on the machine counts little. Three programs take turns on the same examples:

    decoding      photograph and label map by cv2.imdecode, nothing else
    mmseg steps   what mmsegmentation does on the host: decode, resize the whole image,
                  crop, mirror, distort colours, normalise, pad, channels first
    ours          the loader: record, decode, crop, mirror, batch of bytes (colours and
                  normalisation are the train step's, on the device)
"""

import argparse
import pathlib
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds

from segnext_jax.benchmark.programs import machine, table_line
from segnext_jax.config import base_config
from segnext_jax.datasets import DatasetSpec, get_spec
from segnext_jax.pipeline import RandomScaleCropFlip, TrainLoader
from segnext_jax.pipeline.sources import Example, Source, open_source
from segnext_jax.preparation.command import prepare
from segnext_jax.preparation.folders import RawFolder
from segnext_jax.preparation.segmentation import SegmentationBuilder

MEAN = np.array([123.675, 116.28, 103.53], np.float64)
STD = np.array([58.395, 57.12, 57.375], np.float64)


class Case(NamedTuple):
    """A kind of data: what is read and what is made of it; sizes (height, width)."""

    dataset: str
    size: tuple[int, int]
    suffix: str
    jpeg_quality: int
    num_examples: int
    crop_size: tuple[int, int]
    base_scale: tuple[int, int]
    batch_size: int


CASES = {
    # Photographs of ADE20K have quality 75 and 4:2:0, 50 kB at this size.
    "ade20k": Case("ade20k", (512, 683), ".jpg", 75, 64, (512, 512), (2048, 512), 16),
    "cityscapes": Case(
        "cityscapes", (1024, 2048), ".png", 0, 8, (1024, 1024), (2048, 1024), 4
    ),
}


def main(arguments: Sequence[str]) -> None:
    """Measure all cases; print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--case", choices=CASES, nargs="*", default=list(CASES))
    parser.add_argument(
        "--data_dir",
        help="measure prepared data sets of this folder instead of generated images",
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each program")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    rows = []
    for name in options.case:
        with tempfile.TemporaryDirectory() as folder:
            case = CASES[name]
            spec = get_spec(case.dataset)
            if not options.data_dir:
                _prepare_generated(case, spec, pathlib.Path(folder))
            source = open_source(spec, spec.train_split, options.data_dir or folder)
            rows += _compare(name, case, spec, source, options.rounds)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([*row.values()] for row in rows)]
    line = shlex.join(["python", "-m", "benchmarks.input_pipeline", *arguments])
    sys.stdout.write("".join(map(table_line, lines)) + f"\n{machine()}: `{line}`\n")


def _loader(
    source: Source,
    spec: DatasetSpec,
    batch_size: int,
    crop_size: tuple[int, int],
    base_scale: tuple[int, int],
    num_workers: int = 0,
    num_threads: int = 2,
) -> TrainLoader:
    config = base_config()
    config.batch_size = batch_size
    config.data.crop_size, config.data.base_scale = crop_size, base_scale
    config.data.num_workers, config.data.num_threads = num_workers, num_threads
    config.data.prefetch_batches = 2 if num_threads > 1 else 1
    transform = RandomScaleCropFlip.from_config(config.data, spec)
    return TrainLoader(source, transform, config)


def _compare(
    name: str, case: Case, spec: DatasetSpec, source: Source, rounds: int
) -> list[dict[str, Any]]:
    examples = [source[i] for i in range(min(len(source), case.num_examples))]
    rng = np.random.default_rng(0)
    loader = _loader(
        source, spec, case.batch_size, case.crop_size, case.base_scale, num_threads=1
    )
    num_batches = max(1, len(examples) // case.batch_size)

    def decode() -> int:
        for example in examples:
            for name in ("image", "label"):
                encoded = np.frombuffer(example[name], np.uint8)
                cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        return len(examples)

    def mmseg_steps() -> int:
        for example in examples:
            _mmseg_steps(example, case, rng)
        return len(examples)

    def ours() -> int:
        for _ in range(num_batches):
            next(loader)
        # The loader's own thread works ahead: as many batches as were taken.
        _wait_until_idle()
        return num_batches * case.batch_size

    programs: dict[str, Callable[[], int]] = {
        "decoding": decode,
        "mmseg steps": mmseg_steps,
        "ours": ours,
    }
    times: dict[str, list[float]] = {program: [] for program in programs}
    for round_index in range(rounds + 1):
        for program, call in programs.items():
            start = time.process_time()
            count = call()
            if round_index:  # The first fills caches and opens files.
                times[program].append((time.process_time() - start) / count)
    loader.close()
    median = {program: statistics.median(values) for program, values in times.items()}
    return [
        {
            "case": name,
            "program": program,
            "ms per image": 1e3 * median[program],
            "spread ms": 1e3 * (max(times[program]) - min(times[program])),
            "images/s per core": 1 / median[program],
            "speed / decoding": median["decoding"] / median[program],
            "speed / mmseg steps": median["mmseg steps"] / median[program],
        }
        for program in programs
    ]


def _wait_until_idle() -> None:
    before = -1.0
    while time.process_time() - before > 1e-3:
        before = time.process_time()
        time.sleep(0.03)


def _mmseg_steps(example: Example, case: Case, rng: np.random.Generator) -> np.ndarray:
    """Do on the host what mmsegmentation's training pipeline does."""
    image = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR)
    label = cv2.imdecode(
        np.frombuffer(example["label"], np.uint8), cv2.IMREAD_UNCHANGED
    )
    assert image is not None and label is not None  # They are decoded elsewhere, too.
    ratio = rng.uniform(0.5, 2.0)
    long, short = (int(side * ratio) for side in case.base_scale)
    height, width = image.shape[:2]
    factor = min(long / max(height, width), short / min(height, width))
    size = int(width * factor + 0.5), int(height * factor + 0.5)
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    for _ in range(10):
        top = rng.integers(0, max(size[1] - case.crop_size[0], 0) + 1)
        left = rng.integers(0, max(size[0] - case.crop_size[1], 0) + 1)
        rows = slice(top, top + case.crop_size[0])
        columns = slice(left, left + case.crop_size[1])
        classes, counts = np.unique(label[rows, columns], return_counts=True)
        counts = counts[classes != 255]
        if len(counts) > 1 and counts.max() / counts.sum() < 0.75:
            break
    image, label = image[rows, columns], label[rows, columns]
    if rng.random() < 0.5:
        image, label = cv2.flip(image, 1), cv2.flip(label, 1)
    image = _distort(image, rng)
    image = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_BGR2RGB)
    cv2.subtract(image, MEAN[None], image)
    cv2.multiply(image, 1 / STD[None], image)
    below, right = (
        side - have for side, have in zip(case.crop_size, image.shape[:2], strict=True)
    )
    border = (0, below, 0, right, cv2.BORDER_CONSTANT)
    image = cv2.copyMakeBorder(image, *border, value=(0, 0, 0))
    cv2.copyMakeBorder(label, *border, value=255)
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def _distort(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """PhotoMetricDistortion on uint8 BGR."""

    def scaled(values: np.ndarray, alpha: float = 1.0, beta: float = 0.0):
        product = values.astype(np.float32) * alpha + beta
        return np.clip(product, 0, 255).astype(np.uint8)

    contrast_first = rng.random() < 0.5
    if rng.random() < 0.5:
        image = scaled(image, beta=rng.uniform(-32, 32))
    if contrast_first and rng.random() < 0.5:
        image = scaled(image, rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = scaled(hsv[..., 1], rng.uniform(0.5, 1.5))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(-18, 18)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if not contrast_first and rng.random() < 0.5:
        image = scaled(image, rng.uniform(0.5, 1.5))
    return image


def _prepare_generated(case: Case, spec: DatasetSpec, folder: pathlib.Path) -> None:
    """Write a prepared data set of images with the statistics of photographs."""
    data_set = spec

    class Generated(SegmentationBuilder):
        spec = data_set

        def find_examples(self, root: RawFolder) -> dict[str, Sequence[int]]:
            return {data_set.train_split: range(case.num_examples)}

        def load(self, example: int) -> tuple[str, bytes, np.ndarray]:
            rng = np.random.default_rng(example)
            options = [cv2.IMWRITE_JPEG_QUALITY, case.jpeg_quality]
            _, encoded = cv2.imencode(
                case.suffix,
                _photograph(case.size, rng),
                options if case.suffix == ".jpg" else [],
            )
            labels = _blobs(case.size, data_set.num_classes, rng)
            return str(example), encoded.tobytes(), labels

    tfds.disable_progress_bar()
    prepare(Generated(data_dir=folder, raw_dir=folder))


def _photograph(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw noise whose amplitude rises with its wave length, as in photographs."""
    height, width = size
    image = np.full((height, width, 3), 120, np.float32)
    for octave in range(9):
        step = 2**octave
        noise = rng.standard_normal((height // step + 2, width // step + 2, 3))
        image += cv2.resize(
            (3 * step**0.75 * noise).astype(np.float32),
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
    return np.clip(image, 0, 255).astype(np.uint8)


def _blobs(
    size: tuple[int, int], num_classes: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw smooth regions of up to twelve classes."""
    scores = np.stack(
        [
            cv2.resize(
                rng.standard_normal((6, 8)), size[::-1], interpolation=cv2.INTER_CUBIC
            )
            for _ in range(12)
        ]
    )
    return rng.permutation(num_classes)[:12][scores.argmax(axis=0)].astype(np.uint8)


if __name__ == "__main__":
    main(sys.argv[1:])
