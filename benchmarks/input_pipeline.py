"""Images per second of the training pipeline, against what bounds it.

    python -m benchmarks.input_pipeline --rounds=11

Times are processor time, all threads together, so that they are per core and other work
on the machine counts little. Two programs take turns on the same examples:

    decoding   photograph and label map by cv2.imdecode, nothing else
    ours       the loader: record, decode, crop, mirror, batch of bytes (colours and
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
from segnext_jax.pipeline.sources import Source, open_source
from segnext_jax.preparation.command import prepare
from segnext_jax.preparation.folders import RawFolder
from segnext_jax.preparation.segmentation import SegmentationBuilder


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


def _loader(source: Source, spec: DatasetSpec, case: Case) -> TrainLoader:
    config = base_config()
    config.batch_size = case.batch_size
    config.data.crop_size, config.data.base_scale = case.crop_size, case.base_scale
    config.data.num_workers, config.data.num_threads = 0, 1
    config.data.prefetch_batches = 1
    transform = RandomScaleCropFlip.from_config(config.data, spec)
    return TrainLoader(source, transform, config)


def _compare(
    name: str, case: Case, spec: DatasetSpec, source: Source, rounds: int
) -> list[dict[str, Any]]:
    examples = [source[i] for i in range(min(len(source), case.num_examples))]
    loader = _loader(source, spec, case)
    num_batches = max(1, len(examples) // case.batch_size)

    def decode() -> int:
        for example in examples:
            for name in ("image", "label"):
                encoded = np.frombuffer(example[name], np.uint8)
                cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        return len(examples)

    def ours() -> int:
        for _ in range(num_batches):
            next(loader)
        # The loader's own thread works ahead: as many batches as were taken.
        _wait_until_idle()
        return num_batches * case.batch_size

    programs: dict[str, Callable[[], int]] = {"decoding": decode, "ours": ours}
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
        }
        for program in programs
    ]


def _wait_until_idle() -> None:
    before = -1.0
    while time.process_time() - before > 1e-3:
        before = time.process_time()
        time.sleep(0.03)


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
