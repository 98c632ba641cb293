"""What is compared: cases, the arrays that both networks get, and our programs.

Outputs are compared before programs are timed. Each train step draws its own random
numbers, so that of steps the first losses are compared.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

from segnext_jax.benchmark import programs as benchmark
from segnext_jax.benchmark.programs import IGNORE_LABEL
from segnext_jax.config import base_config
from segnext_jax.describe.network import count_macs
from segnext_jax.evaluation.batch import LabelledBatch
from segnext_jax.evaluation.evaluator import measure_segmentation
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.pipeline import EvaluationBatches, Fitting

# Photographs of an evaluation, in turn: ADE20K's have many sizes, most of them 4:3.
PHOTOGRAPH_SIZES = ((512, 683), (480, 640), (600, 800), (768, 1024))
NUM_PHOTOGRAPHS = 8
# Each work has the noun of its results, and the largest difference that is rounding, in
# float32 and in bfloat16. Logits: relative to the largest; labels and counts: a share
# of pixels (two classes of random weights are often near each other); losses: relative
# (dropout, drop path and bases differ).
WORKS = {
    "logits": ("logits", 1e-3, 0.1),
    "labels": ("label maps", 1e-3, 0.1),
    "step": ("losses", 0.02, 0.02),
    "evaluation": ("confusion matrices", 1e-3, 0.1),
}


class Case(NamedTuple):
    """A work, and the network and sizes that it is done with.

    Attributes:
      work: One of `WORKS`.
      variant: Name of the network.
      size: (height, width) of images that are network inputs; an evaluation has
        photographs instead.
      batch: Images at a time.
      classes: Number of classes.
      dtype: float32 or bfloat16.
      depthwise: Formulation of depthwise convolutions; None: the configuration's.
    """

    work: str
    variant: str
    size: tuple[int, int]
    batch: int
    classes: int = 150
    dtype: str = "float32"
    depthwise: str | None = None


class Inputs(NamedTuple):
    """What both networks get: configuration, our model and weights, images."""

    config: Any
    model: SegNeXt
    variables: dict[str, Any]
    batches: tuple[LabelledBatch, ...]

    def bases(self, batch_size: int) -> np.ndarray:
        """Return the starting bases of the NMF for each image of a batch."""
        (draw,) = self.model.draws().values()
        return np.repeat(np.asarray(draw), batch_size, axis=0)

    def photographs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (fitted image, label map) of each; copies are left out."""
        return [
            (image, label_map)
            for batch in self.batches
            for image, label_map, is_real in zip(
                batch.images[0], batch.labels, batch.mask, strict=True
            )
            if is_real
        ]


class Program(NamedTuple):
    """Something to be timed.

    Attributes:
      run: Runs once, returns when the result is there.
      to_numpy: Makes of the result what is compared.
      compile_s: Seconds of compilation before the first run.
      num_bytes: What must be read or written once, at least.
      plan_mb: Results and temporaries, by the compiler's plan.
      settle: Frees what a run leaves and the next does not need; returns the bytes of
        what the first run made to stay: an optimizer's moments.
    """

    run: Callable[[], Any]
    to_numpy: Callable[[Any], np.ndarray] = np.asarray
    compile_s: float = 0.0
    num_bytes: int = 0
    plan_mb: float | None = None
    settle: Callable[[], int] = lambda: 0


def make_inputs(case: Case) -> Inputs:
    """Draw the weights and images of a case."""
    config: Any = base_config()
    config.model.variant, config.model.dtype = case.variant, case.dtype
    if case.depthwise:
        config.model.depthwise = case.depthwise
    # PyTorch's side has none of these.
    config.data.photometric = False
    if jax.default_backend() != "cpu":
        # What the configuration advises for a GPU.
        config.evaluation.tile_mebibytes = 64
    model = SegNeXt.from_config(config.model, case.classes)
    variables = initialize(model, seed=0)
    # At 0.01 a wrong branch would hide in the rounding; at 0.2 the products of the 21
    # blocks of the base variant overflow.
    variables["params"] = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 4 if "layer_scale" in str(path[-1]) else leaf,
        variables["params"],
    )
    if case.work == "evaluation":
        photographs: Any = [
            _photograph(index, case.classes) for index in range(NUM_PHOTOGRAPHS)
        ]
        batches = EvaluationBatches(
            photographs,
            Fitting.from_config(config.evaluation),
            num_classes=case.classes,
            batch_size=case.batch,
            ignore_label=IGNORE_LABEL,
        )
    else:
        batches = [benchmark.random_batch(case.batch, case.size, case.classes)]
    return Inputs(config, model, variables, tuple(batches))


def _photograph(index: int, num_classes: int) -> Any:
    """Draw a smooth image with random labels, some of them ignored."""
    height, width = PHOTOGRAPH_SIZES[index % len(PHOTOGRAPH_SIZES)]
    generator = np.random.default_rng(index)
    noise = generator.integers(0, 256, (9, 12, 3), np.uint8)
    image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    labels = generator.integers(0, num_classes, (height, width)).astype(np.uint8)
    labels[: height // 16] = IGNORE_LABEL
    encoded = cv2.imencode(".png", image)[1].tobytes()
    return {"image": encoded, "label": labels, "image_id": str(index)}


def count_flops(case: Case, inputs: Inputs) -> float:
    """Return two operations for each multiplication of convolutions and products.

    A train step has three times those of an inference: backward there are products of
    the gradient with weights and with activations.
    """
    total = sum(
        2.0 * int(batch.mask.sum()) * sum(count_macs(inputs.model, size).values())
        for batch in inputs.batches
        for size in [batch.images[0].shape[1:3]]
    )
    return 3 * total if case.work == "step" else total


def ours(case: Case, inputs: Inputs) -> Program:
    """Return our program, which has not run yet."""
    config, model, variables, batches = inputs
    images = sum(image.nbytes for image, _ in inputs.photographs())
    labels = sum(label_map.nbytes for _, label_map in inputs.photographs())
    weights = len(batches) * sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    if case.work == "evaluation":
        network = benchmark.make_inference(config, model, variables)
        counts: Any = dict(num_classes=case.classes, ignore_label=IGNORE_LABEL)
        # A label map is read, another written.
        return Program(
            lambda: measure_segmentation(network, batches, **counts).confusion,
            num_bytes=weights + images + 2 * labels,
        )
    if case.work == "labels":
        made = benchmark.label_maps(config, model, variables, batches[0])
        return Program(made.run, num_bytes=weights + images + labels)
    is_step = case.work == "step"
    make = benchmark.train_step if is_step else benchmark.logits
    made = make(config, model, variables, batches[0])
    plan = made.compiled.memory_analysis()
    return Program(
        made.run,
        lambda out: np.asarray(out["loss"] if is_step else out).astype(np.float32),
        made.compile_s or 0.0,
        plan.argument_size_in_bytes + plan.output_size_in_bytes,
        made.plan_mb,
    )


def check_same(case: Case, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the difference of two outputs; see `WORKS`.

    Raises:
      ValueError: If the outputs differ by more than rounding.
    """
    noun, *limits = WORKS[case.work]
    limit = limits[case.dtype == "bfloat16"]
    if ours.shape != theirs.shape:
        difference = np.inf
    elif case.work == "labels":
        difference = np.mean(ours != theirs)
    elif case.work == "evaluation":
        # A pixel that moves leaves one cell and enters another.
        difference = np.abs(ours - theirs).sum() / 2 / max(theirs.sum(), 1)
        difference = difference if ours.sum() == theirs.sum() else np.inf
    else:
        difference = np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))
    if not difference < limit:
        raise ValueError(
            f"{noun} must be equal before they are timed: got a difference of "
            f"{difference:.2g}, above {limit}."
        )
    return float(difference)
