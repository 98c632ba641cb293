"""Largest differences between this package and the official network, as a table.

Needs torch. compare/torch_segnext.py stands for the official network, which it equals
to 1e-13 in float64.

    python -m benchmarks.parity > parity_table.md
    python -m benchmarks.parity --variants tiny --sizes 128x128
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import unflatten_dict

from benchmarks.compare import torch_segnext, weights
from segnext_jax.cli.command import parse_size
from segnext_jax.convert.names import entries, to_flax
from segnext_jax.models.segnext import VARIANTS, SegNeXt
from segnext_jax.ops.resize import resize_bilinear

NUM_CLASSES = 150
# Each program runs once: without optimisation it takes half the time.
QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0}
COLUMNS = (
    ("variant", "size", "type")
    + ("stage 1", "stage 2", "stage 3", "stage 4", "logits", "train logits")
    + ("argmax", "torch float32")
)


def run_torch(model, images, bases, train: bool) -> list[np.ndarray]:
    """Return the four features and the logits, NHWC."""
    dtype = next(model.parameters()).dtype
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.train(train)
    model.bases = torch.tensor(bases, dtype=dtype)
    with torch.no_grad():
        nchw = torch.tensor(images.transpose(0, 3, 1, 2), dtype=dtype)
        features = model.backbone(nchw)
        outputs = [*features, model.decode_head(features)]
    model.load_state_dict(state)
    return [output.permute(0, 2, 3, 1).numpy() for output in outputs]


def run_jax(model, variables, images, bases, train: bool) -> list[np.ndarray]:
    """Return what `run_torch` returns, computed by this package."""

    def outputs(module, images, bases):
        features = module.backbone(images, train)
        return *features, module.decode_head(features, bases, train)

    @jax.jit
    def apply(*arguments):
        mutable = ["batch_stats"] if train else []
        return model.apply(*arguments, method=outputs, mutable=mutable)[0]

    dtype = model.dtype
    arguments = (variables, jnp.asarray(images, dtype), jnp.asarray(bases, dtype))
    compiled = apply.lower(*arguments).compile(compiler_options=QUICK)
    return [np.asarray(output) for output in compiled(*arguments)]


def rows(variant: str, size: tuple[int, int], batch: int) -> Iterator[list[str]]:
    """Yield one row per type."""
    sizes = dataclasses.replace(VARIANTS[variant], drop_path_rate=0.0)
    theirs = torch_segnext.segnext(variant, NUM_CLASSES, drop_path=0.0, dropout=0.0)
    state = {
        name: torch.from_numpy(np.array(weights.value_for(name, value.shape)))
        for name, value in theirs.state_dict().items()
    }
    theirs.load_state_dict(state)
    generator = np.random.default_rng(0)
    images = generator.standard_normal((batch, *size, 3), np.float32)
    bases = weights.bases_for(batch, sizes.head_channels, sizes.rank)

    single = run_torch(theirs, images, bases, train=False)
    theirs = theirs.double()
    exact = run_torch(theirs, images, bases, train=False)
    exact_train = run_torch(theirs, images, bases, train=True)[-1]
    for dtype in ("float64", "float32"):
        with jax.enable_x64(dtype == "float64"):
            flat = {
                entry.path: to_flax(state[entry.official].numpy(), entry.layout)
                for entry in entries(sizes, NUM_CLASSES)
                if entry.path is not None
            }
            variables = jax.tree.map(
                lambda leaf: jnp.asarray(leaf, dtype),  # noqa: B023
                unflatten_dict(flat),
            )
            model = SegNeXt(
                sizes,
                NUM_CLASSES,
                dropout_rate=0.0,
                dtype=jnp.dtype(dtype),
                param_dtype=jnp.dtype(dtype),
            )
            given = run_jax(model, variables, images, bases, train=False)
            given_train = run_jax(model, variables, images, bases, train=True)[-1]
        differences = [
            np.abs(ours - wanted).max()
            for ours, wanted in zip(
                (*given, given_train), (*exact, exact_train), strict=True
            )
        ]
        torch_single = np.abs(single[-1] - exact[-1]).max()
        yield [
            variant,
            f"{batch}x{size[0]}x{size[1]}",
            dtype,
            *(f"{difference:.1e}" for difference in differences),
            count_differing(given[-1], exact[-1], size),
            f"{torch_single:.1e}" if dtype == "float32" else "",
        ]


def count_differing(
    given: np.ndarray, wanted: np.ndarray, size: tuple[int, int]
) -> str:
    """Return how many pixels of clear margin are of another class, of how many."""
    with jax.enable_x64(True):
        given, wanted = (
            np.asarray(resize_bilinear(jnp.asarray(logits, jnp.float64), size))
            for logits in (given, wanted)
        )
    ordered = np.sort(wanted, axis=-1)
    is_clear = ordered[..., -1] - ordered[..., -2] > 1e-3
    differing = (given.argmax(axis=-1) != wanted.argmax(axis=-1)) & is_clear
    return f"{differing.sum()} of {is_clear.sum()}"


def main() -> None:
    """Print the table as Markdown, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description="Compare with the official network.")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--sizes", nargs="+", default=["128x128", "97x161", "161x97"])
    parser.add_argument("--batch", type=int, default=2)
    options = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for variant in options.variants:
        for text in options.sizes:
            start = time.monotonic()
            height, width = parse_size(text, "--sizes", multiple=1)
            for row in rows(variant, (height, width), options.batch):
                print("| " + " | ".join(row) + " |", flush=True)
            seconds = time.monotonic() - start
            print(f"{variant} {text}: {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
