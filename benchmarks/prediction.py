"""Images per second of `segnext-jax predict`, beside its parts alone; memory of a list.

    python -m benchmarks.prediction --variant=tiny
    python -m benchmarks.prediction --device_ms=20
    python -m benchmarks.prediction --names=1000,100000,1000000

The parts take turns with the whole in each round; medians. Decoding alone is reading
and decoding by all threads, the network alone is `predict_batch` of a batch that is
ready. On a CPU the network has the cores that decode. ``--device_ms`` puts in its place
what waits so long for each image, as the host does where an accelerator computes.

``--names`` predicts lists of so many links to small photographs by the command itself,
and prints its peak of memory.
"""

import argparse
import concurrent.futures
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import cv2
import jax
import numpy as np

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import model_folder
from segnext_jax.evaluation.row_blocks import RowBlock
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.predict import predictor as predictor_lib
from segnext_jax.predict.inputs import find_inputs
from segnext_jax.predict.jobs import Options, plan
from segnext_jax.predict.photograph import read_image
from segnext_jax.predict.run import run

_DEVICE = threading.Lock()

# Runs the command, and prints the MiB that it took.
MEASURE = """
import resource, sys
from segnext_jax.cli import command
from segnext_jax.predict.__main__ import main
code = command.run(main, sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
sys.exit(code)
"""


class Waiting(predictor_lib.Predictor):
    """A network on a device of its own: the host waits for its labels."""

    device_ms = 0.0

    def predict_batch(self, images, has_probabilities=False, fitted=None):
        """Wait."""
        with _DEVICE:
            time.sleep(self.device_ms * len(images) / 1_000)
        return [RowBlock(np.zeros(one.shape[:2], np.uint8), None) for one in images]


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--variant", default="tiny")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 683))
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--format", default="labels")
    parser.add_argument("--device_ms", type=float, help="per image; no network")
    parser.add_argument("--names", help="lengths of lists, by commas")
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="prediction_"))
    if options.names:
        lengths = [int(text) for text in options.names.split(",")]
        return _measure_memory(folder, lengths)
    _draw(folder / "in", options.images, options.size)
    _measure_pace(folder, options)


def _draw(folder: pathlib.Path, count: int, size: tuple[int, int]) -> None:
    folder.mkdir()
    generator = np.random.default_rng(0)
    height, width = size
    for number in range(count):
        noise = generator.integers(0, 256, (-(-height // 8), -(-width // 8), 3))
        image = cv2.resize(noise.astype(np.float32), (width, height))
        image += generator.normal(0, 8, image.shape)  # About 50 kB at 512 x 683.
        path = folder / f"{number:04d}.jpg"
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 75])


def _save_model(folder: pathlib.Path, *overrides: str) -> pathlib.Path:
    config = config_lib.load("ade20k_tiny", list(overrides))
    variables = initialize(SegNeXt.from_config(config.model, 150), seed=0)
    model_folder.save_model(folder / "model", variables, config_lib.to_json(config))
    return folder / "model"


def _measure_pace(folder: pathlib.Path, options: argparse.Namespace) -> None:
    path = _save_model(folder, f"model.variant={options.variant}")
    predictor = predictor_lib.load(path, devices=jax.local_devices())
    if options.device_ms is not None:
        Waiting.device_ms = options.device_ms
        predictor.__class__ = Waiting
    inputs = find_inputs([str(folder / "in")])
    settings = Options(
        folder / "out",
        formats=tuple(options.format.split(",")),
        existing="overwrite",
        batch_size=options.batch_size,
    )
    size = options.batch_size * predictor.num_devices
    batch = [read_image(item.path) for item in inputs[:size]]
    fitted = [predictor.fit(image) for image in batch]

    def decode() -> int:
        with concurrent.futures.ThreadPoolExecutor(settings.num_threads) as pool:
            return sum(1 for _ in pool.map(read_image, [i.path for i in inputs]))

    def compute() -> int:
        for _ in range(len(inputs) // size):
            predictor.predict_batch(batch, False, fitted)
        return len(inputs) // size * size

    def whole() -> int:
        parts = list(plan(inputs, settings, predictor.spec))
        return run(predictor, parts, settings).num_inputs

    programs: dict[str, Callable[[], int]] = {
        "decoding alone": decode,
        "network alone": compute,
        "predict": whole,
    }
    whole()  # Compiles.
    paces: dict[str, list[float]] = {name: [] for name in programs}
    work: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(options.rounds):
        for name, program in programs.items():
            start, work_start = time.perf_counter(), time.process_time()
            count = program()
            paces[name].append(count / (time.perf_counter() - start))
            work[name].append(1_000 * (time.process_time() - work_start) / count)
    ratios = [
        whole / min(decoding, network)
        for decoding, network, whole in zip(*paces.values(), strict=True)
    ]
    for name, values in paces.items():
        sys.stdout.write(
            f"{name}: {statistics.median(values):.2f} images/s, "
            f"{statistics.median(work[name]):.2f} ms of a core each\n"
        )
    sys.stdout.write(
        f"predict / the slower of the two: {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})\n"
    )


def _measure_memory(folder: pathlib.Path, lengths: list[int]) -> None:
    settings = ("evaluation.scale=32,32", "model.depths=1,1,1,1", "model.rank=4")
    path = _save_model(folder, *settings, "model.embed_dims=8,8,8,8")
    _draw(folder / "small", 100, (32, 32))
    for number in range(-(-max(lengths) // 100)):
        (folder / f"{number:05d}").symlink_to(folder / "small")
    for length in lengths:
        names = folder / "list"
        with names.open("w") as file:
            for number in range(length):
                above, below = divmod(number, 100)
                file.write(f"{folder}/{above:05d}/{below:04d}.jpg\n")
        command = [
            *(sys.executable, "-c", MEASURE, f"--checkpoint={path}"),
            *(f"--list={names}", f"--output={folder / str(length)}"),
            *("--container=tar", "--format=labels,table"),
        ]
        start = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.monotonic() - start
        peak = int(done.stdout.split()[-1])
        sys.stdout.write(f"{length:,} names: peak {peak:,} MiB, {seconds:.0f} s\n")


if __name__ == "__main__":
    main()
