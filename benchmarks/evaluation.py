"""Images per second of an evaluation, against the same one in PyTorch eager.

For developers: needs torch and a file with the network in PyTorch, whose function
``segnext(variant, num_classes)`` returns it with the official parameter names, and
whose attribute ``bases`` sets the starting bases.

    python benchmarks/evaluation.py --oracle ../shared/reference/torch_segnext.py

Both get the same weights, bases and images, decoded and fitted to the network before
the clock starts, and do the rest of a single-scale evaluation of whole images: network,
resize to the original size, best class, counts. PyTorch takes one image at a time, as
the official code does, in channels_last; this package one at a time and in batches. The
three take turns; medians of their rounds are printed.
"""

import argparse
import dataclasses
import importlib.util
import itertools
import pathlib
import sys
import time
import types
from collections.abc import Callable, Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import unflatten_dict

from segnext_jax.convert.names import entries, to_flax
from segnext_jax.evaluation.evaluator import evaluate
from segnext_jax.evaluation.inference import Inference
from segnext_jax.models.segnext import VARIANTS, SegNeXt
from segnext_jax.pipeline import EvaluationBatch, Fitting

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# Photographs of ADE20K have many sizes, most of them 4:3.
SIZES = ((512, 683), (480, 640), (600, 800), (768, 1024))


def load(path: pathlib.Path) -> types.ModuleType:
    """Import a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_batches(
    num_images: int, batch_size: int, num_classes: int, fitting: Fitting
) -> list[EvaluationBatch]:
    """Return random images and labels in batches."""
    examples = []
    for number, size in zip(range(num_images), itertools.cycle(SIZES)):
        generator = np.random.default_rng(number)
        noise = generator.integers(0, 256, (9, 12, 3), np.uint8)
        image = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)
        labels = generator.integers(0, num_classes, size).astype(np.uint8)
        examples.append((image, labels))
    batches = []
    for start in range(0, num_images, batch_size):
        rows = examples[start : start + batch_size]
        sizes = tuple(labels.shape for _, labels in rows)
        fitted = [fitting.images(image)[0] for image, _ in rows]
        batches.append(
            EvaluationBatch(
                images=(np.stack(fitted),),
                fitted_sizes=(tuple(fitting.sizes(size)[0] for size in sizes),),
                image_sizes=sizes,
                first_row=0,
                labels=tuple(labels for _, labels in rows),
                mask=np.ones(len(rows), bool),
                image_ids=tuple(f"{start + row}" for row in range(len(rows))),
            )
        )
    return batches


def evaluate_torch(
    model: torch.nn.Module, batches: Sequence[EvaluationBatch], num_classes: int
) -> np.ndarray:
    """Return the confusion matrix as the official steps give it."""
    resize = torch.nn.functional.interpolate
    options = {"mode": "bilinear", "align_corners": False}
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for batch in batches:
        (labels,), (images,) = batch.labels, batch.images
        inputs = (images.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
        inputs = torch.from_numpy(inputs).permute(0, 3, 1, 2)
        with torch.inference_mode():
            scores = model(inputs.contiguous(memory_format=torch.channels_last))
            scores = resize(scores, size=inputs.shape[2:], **options)
            scores = resize(scores, size=labels.shape, **options)
            scores = torch.softmax(scores, dim=1)
            prediction = scores.argmax(dim=1)[0].numpy()
        cells = labels.astype(np.int64) * num_classes + prediction
        counts = np.bincount(cells.ravel(), minlength=num_classes**2)
        confusion += counts.reshape(confusion.shape)
    return confusion


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--oracle", type=pathlib.Path, required=True)
    parser.add_argument("--variant", choices=VARIANTS, default="tiny")
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=int, nargs=2, default=(2048, 512))
    options = parser.parse_args()

    theirs = load(options.oracle).segnext(options.variant, options.classes).eval()
    variant = dataclasses.replace(VARIANTS[options.variant], drop_path_rate=0.0)
    model = SegNeXt(variant, options.classes)
    state = theirs.state_dict()
    variables = unflatten_dict(
        {
            entry.path: jnp.asarray(
                to_flax(state[entry.official].numpy(), entry.layout)
            )
            for entry in entries(variant, options.classes)
            if entry.path is not None
        }
    )
    bases = model.fixed_bases(0)
    theirs.bases = torch.tensor(np.asarray(bases))
    theirs = theirs.to(memory_format=torch.channels_last)

    @jax.jit
    def apply(images: jax.Array) -> jax.Array:
        repeated = jnp.broadcast_to(bases, (len(images), *bases.shape[1:]))
        return model.apply(variables, images, repeated)

    network = Inference(apply, mean=MEAN, std=STD)
    fitting = Fitting(tuple(options.scale), multiple=32)
    single, joined = (
        make_batches(options.images, size, options.classes, fitting)
        for size in (1, options.batch)
    )

    def run_ours(batches: Sequence[EvaluationBatch]) -> np.ndarray:
        return evaluate(
            network, batches, num_classes=options.classes, ignore_label=255
        ).confusion

    runs: dict[str, Callable[[], np.ndarray]] = {
        "PyTorch eager, batch 1": lambda: evaluate_torch(
            theirs, single, options.classes
        ),
        "segnext_jax, batch 1": lambda: run_ours(single),
        f"segnext_jax, batch {options.batch}": lambda: run_ours(joined),
    }
    confusions = {name: run() for name, run in runs.items()}  # Compiles, too.
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    paces = {name: options.images / np.median(s) for name, s in seconds.items()}
    first = next(iter(runs))
    sys.stdout.write("| evaluation | images/s | ratio | pixels that differ |\n")
    sys.stdout.write("|---|---|---|---|\n")
    for name, pace in paces.items():
        # At least so many: pixels that swap places in the table are not seen.
        differing = np.abs(confusions[name] - confusions[first]).sum() // 2
        share = differing / confusions[first].sum()
        sys.stdout.write(
            f"| {name} | {pace:.2f} | {pace / paces[first]:.2f} | {share:.1e} |\n"
        )


if __name__ == "__main__":
    main()
