"""What is measured: networks, image sizes and batches, and the arrays they get.

``--variant``, ``--size`` and ``--batch`` take several values; every combination is a
case of its own.
"""

import argparse
import copy
import importlib.util
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

from segnext_jax.config import base_config
from segnext_jax.describe import count_macs
from segnext_jax.evaluation.batch import FittedSize, LabelledBatch
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import VARIANTS, SegNeXt
from segnext_jax.pipeline import EvaluationBatches, Fitting

DTYPES = ("float32", "bfloat16")
# How PyTorch may run a network; the best of them counts.
FORMS = ("eager", "channels_last", "compile")
# What there is to do, by what is measured.
WORKS = {
    "forward": ("logits", "labels"),
    "train": ("step",),
    "compile": ("logits", "step"),
    "evaluate": ("evaluation",),
}
# Photographs of ADE20K have many sizes, most of them 4:3.
PHOTOGRAPH_SIZES = ("512x683", "480x640", "600x800", "768x1024")
IGNORE_LABEL = 255


class Case(NamedTuple):
    """A network and what it gets.

    Attributes:
      variant: Name of the network.
      model: Our network.
      variables: Its weights, on the host.
      bases: Starting bases of the NMF for one image.
      batches: Images as bytes, and their label maps.
      config: The settings of everything else.
    """

    variant: str
    model: SegNeXt
    variables: dict[str, Any]
    bases: np.ndarray
    batches: tuple[LabelledBatch, ...]
    config: Any

    @property
    def images(self) -> np.ndarray:
        """The only batch's images."""
        (batch,) = self.batches
        return batch.images[0]

    @property
    def labels(self) -> np.ndarray:
        """The only batch's label maps."""
        (batch,) = self.batches
        return np.stack(batch.labels)

    @property
    def normalized(self) -> np.ndarray:
        """The only batch's images as the network takes them."""
        mean, std = np.float32(self.config.data.mean), np.float32(self.config.data.std)
        return (self.images - mean) / std

    def repeated_bases(self, batch_size: int) -> np.ndarray:
        """Return the bases for each image of a batch."""
        return np.repeat(self.bases, batch_size, axis=0)

    @property
    def num_images(self) -> int:
        """Images that differ: copies that fill up a batch do not count."""
        return sum(int(batch.mask.sum()) for batch in self.batches)

    @property
    def megapixels(self) -> float:
        """Pixels of the network's inputs."""
        return (
            sum(
                int(batch.mask.sum()) * batch.images[0][0, ..., 0].size
                for batch in self.batches
            )
            / 1e6
        )

    def count_flops(self) -> float:
        """Return two operations for each multiplication of an inference.

        Those of convolutions and matrix products: see `segnext_jax.describe`.
        """
        total = 0.0
        for batch in self.batches:
            size = batch.images[0].shape[1:3]
            macs = sum(count_macs(self.model, size).values())
            total += 2.0 * int(batch.mask.sum()) * macs
        return total


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all benchmarks of networks."""
    parser.add_argument(
        "--variant",
        choices=VARIANTS,
        nargs="+",
        default=["tiny"],
        help="networks; each is measured with each size and batch",
    )
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument(
        "--depthwise", help="formulation of depthwise convolutions; default: config's"
    )
    parser.add_argument("--against", help="Python file with the network in PyTorch")
    parser.add_argument(
        "--torch_forms",
        choices=FORMS,
        nargs="*",
        default=["eager", "channels_last"],
        help="how PyTorch runs it; compile (in channels_last) takes minutes",
    )
    parser.add_argument(
        "--work", nargs="+", help="only these works, of those that there are"
    )
    parser.add_argument(
        "--time_limit",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="of a case; one that would take longer is named and left; 0: none",
    )


def add_size_options(parser: argparse.ArgumentParser) -> None:
    """Add the sizes of images that are network inputs already."""
    parser.add_argument(
        "--size",
        nargs="+",
        default=["512x512"],
        help="HEIGHTxWIDTH, or one side of squares; multiples of 32",
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1])


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Add what an evaluation sees."""
    parser.add_argument(
        "--image_size",
        nargs="+",
        default=list(PHOTOGRAPH_SIZES),
        help="HEIGHTxWIDTH of photographs, in turn; any",
    )
    parser.add_argument("--images", type=int, default=8, help="number of photographs")
    parser.add_argument(
        "--scale",
        type=int,
        nargs=2,
        metavar=("LONG", "SHORT"),
        help="that photographs are fitted into; default: the config's",
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])


def split(options: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """Yield the options of each case: one variant, one size, one batch.

    Raises:
      ValueError: If a size or batch is impossible, ``--against`` is no file, or PyTorch
        is missing.
    """
    if options.against and not pathlib.Path(options.against).is_file():
        raise ValueError(
            "--against must be a Python file with the network in PyTorch: got "
            f"{options.against}, which is no file."
        )
    if options.against and importlib.util.find_spec("torch") is None:
        raise ValueError(
            "--against needs PyTorch: it is not installed here. "
            "pip install 'segnext_jax[test]' installs the version that was compared."
        )
    if min(options.batch) < 1:
        raise ValueError(f"--batch must be at least 1: got {min(options.batch)}.")
    if options.what == "evaluate":
        # Photographs of all sizes make one evaluation.
        for text in options.image_size:
            parse_size(text, "--image_size", multiple=1)
        sizes = ["+".join(options.image_size)]
    else:
        parsed = [parse_size(text, "--size", multiple=32) for text in options.size]
        sizes = [f"{height}x{width}" for height, width in parsed]
    combinations = itertools.product(options.variant, sizes, options.batch)
    for variant, size, batch in list(combinations):
        one = copy.copy(options)
        one.variant, one.size, one.batch = variant, size, batch
        yield one


def works(options: argparse.Namespace) -> tuple[str, ...]:
    """Return what is to be done.

    Raises:
      ValueError: If ``--work`` names something else.
    """
    known = WORKS[options.what]
    for work in options.work or ():
        if work not in known:
            raise ValueError(
                f"--work of --what={options.what} must be among {', '.join(known)}: "
                f"got {work!r}."
            )
    return tuple(options.work or known)


def parse_size(text: str, option: str, multiple: int) -> tuple[int, int]:
    """Return (height, width) of ``512x768``, or of ``512``.

    Raises:
      ValueError: If the text is no size, or no side is a multiple.
    """
    parts = text.split("x") * (1 if "x" in text else 2)
    if len(parts) != 2 or not all(
        part.isdigit() and int(part) and int(part) % multiple == 0 for part in parts
    ):
        must = f", both multiples of {multiple}" if multiple > 1 else ""
        raise ValueError(
            f"{option} must be HEIGHTxWIDTH{must}: got {text!r}. Use {option}=512x512."
        )
    height, width = map(int, parts)
    return height, width


def make_case(options: argparse.Namespace) -> Case:
    """Draw the weights and images of one of `split`."""
    config: Any = base_config()
    config.model.variant = options.variant
    config.model.dtype = options.dtype
    if options.depthwise:
        config.model.depthwise = options.depthwise
    if jax.default_backend() != "cpu":
        # What the configuration advises for a GPU.
        config.evaluation.tile_mebibytes = 64
    model = SegNeXt.from_config(config.model, options.classes)
    variables = initialize(model, seed=0)
    # At 0.01 a wrong branch would hide in the rounding; at 0.2 the products of the 21
    # blocks of the base variant overflow.
    variables["params"] = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 4 if "layer_scale" in str(path[-1]) else leaf,
        variables["params"],
    )
    make_batches = _photographs if options.what == "evaluate" else _noise
    return Case(
        options.variant,
        model,
        variables,
        np.asarray(model.draws()[0]),
        make_batches(options, config),
        config,
    )


def _noise(options: argparse.Namespace, config: Any) -> tuple[LabelledBatch, ...]:
    """Return one batch of images that are network inputs already."""
    del config
    size = parse_size(options.size, "--size", multiple=32)
    count = options.batch
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *size, 3), np.uint8)
    labels = generator.integers(0, options.classes, (count, *size)).astype(np.uint8)
    batch = LabelledBatch(
        images=(images,),
        fitted_sizes=((FittedSize(inner=size, outer=size),) * count,),
        image_sizes=(size,) * count,
        first_row=0,
        labels=tuple(labels),
        mask=np.ones(count, bool),
        image_ids=tuple(map(str, range(count))),
    )
    return (batch,)


class _Photographs:
    """A source of random smooth images with random labels, some of them ignored."""

    def __init__(self, sizes: list[tuple[int, int]], count: int, num_classes: int):
        self._sizes = sizes
        self._count = count
        self._num_classes = num_classes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        size = self._sizes[index % len(self._sizes)]
        generator = np.random.default_rng(index)
        noise = generator.integers(0, 256, (9, 12, 3), np.uint8)
        image = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)
        labels = generator.integers(0, self._num_classes, size).astype(np.uint8)
        labels[: size[0] // 16] = IGNORE_LABEL
        _, encoded = cv2.imencode(".png", image)
        return {"image": encoded.tobytes(), "label": labels, "image_id": str(index)}


def _photographs(options: argparse.Namespace, config: Any) -> tuple[LabelledBatch, ...]:
    """Return the batches of an evaluation, fitted to the network."""
    if options.scale:
        config.evaluation.scale = tuple(options.scale)
    sizes = [
        parse_size(text, "--image_size", multiple=1) for text in options.image_size
    ]
    batches = EvaluationBatches(
        _Photographs(sizes, options.images, options.classes),
        Fitting.from_config(config.evaluation),
        num_classes=options.classes,
        batch_size=options.batch,
        ignore_label=IGNORE_LABEL,
    )
    return tuple(batches)
