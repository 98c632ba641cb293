"""The programs that are timed: ours, and PyTorch's with the same inputs.

Their outputs are compared before they are timed. The train step draws its own random
numbers on both sides, so that there the first losses are compared.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from segnext_jax.benchmark.cases import IGNORE_LABEL, Case
from segnext_jax.benchmark.memory import Counter, jax_counter
from segnext_jax.evaluation.evaluator import measure_segmentation
from segnext_jax.evaluation.inference import Inference
from segnext_jax.training import recipe, state

# Largest relative difference of logits that is rounding, and share of pixels whose best
# class may differ: two classes of random weights are often near each other.
TOLERANCES = {"float32": (1e-3, 1e-3), "bfloat16": (0.1, 0.1)}
# Of the first losses: dropout, drop path and bases differ.
LOSS_TOLERANCE = 0.02


class Program(NamedTuple):
    """Something to be timed.

    Attributes:
      run: Runs once, returns when the result is there.
      to_numpy: Makes of the result what is compared.
      compile_s: Seconds of tracing and compilation before the first run; 0 where they
        are part of it.
      num_bytes: What must be read or written once, at least: weights, inputs, results.
      plan_mb: Of results and temporaries, by the compiler's plan.
      settle: Frees what a run leaves and the next does not need; returns the bytes of
        what the first run made to stay: an optimizer's moments.
      counter: Of an accelerator's memory; None: the process's memory is the program's.
    """

    run: Callable[[], Any]
    to_numpy: Callable[[Any], np.ndarray] = np.asarray
    compile_s: float = 0.0
    num_bytes: float | None = None
    plan_mb: float | None = None
    settle: Callable[[], int] = lambda: 0
    counter: Counter | None = None

    def first_run(self) -> tuple[np.ndarray, float]:
        """Run for the first time; return result and seconds, compilation included."""
        start = time.perf_counter()
        output = self.run()
        seconds = self.compile_s + time.perf_counter() - start
        return self.to_numpy(output), seconds


def build(work: str, name: str, options: argparse.Namespace, case: Case) -> Program:
    """Return a program that has not run yet.

    Args:
      work: See `cases.WORKS`.
      name: ``ours``, or ``torch`` and one of `cases.FORMS`.
      options: Of one case.
      case: The case.
    """
    if name == "ours":
        return OURS[work](case)
    # Imports PyTorch, which the measurement of ours alone must not hold.
    from segnext_jax.benchmark.pytorch import Opponent

    form = name.removeprefix("torch ")
    return getattr(Opponent(options.against, form, options.classes, case), work)()


def logits(case: Case) -> Program:
    """Return our network from normalised images to logits at 1/8."""
    bases = case.repeated_bases(len(case.images))
    arguments = jax.device_put((case.variables, case.normalized, bases))
    compiled, program = _compiled(jax.jit(case.model.apply), arguments)
    return program._replace(
        run=lambda: jax.block_until_ready(compiled(*arguments)),
        to_numpy=lambda output: np.asarray(output).astype(np.float32),
    )


def labels(case: Case) -> Program:
    """Return our way from bytes of images to label maps of their size, on the host."""
    (batch,) = case.batches
    inference = _inference(case)
    weights = _num_bytes(case.variables)
    return Program(
        lambda: np.stack(inference.label_maps(batch)),
        num_bytes=weights + case.images.nbytes + case.labels.nbytes,
        counter=jax_counter(),
    )


def evaluation(case: Case) -> Program:
    """Return our way from bytes of images to the confusion matrix."""
    inference = _inference(case)
    num_classes = case.model.num_classes

    def run() -> np.ndarray:
        return measure_segmentation(
            inference, case.batches, num_classes=num_classes, ignore_label=IGNORE_LABEL
        ).confusion

    # A label map is read, another written.
    per_image = sum(
        image.nbytes + 2 * label_map.nbytes
        for batch in case.batches
        for image, label_map, is_real in zip(
            batch.images[0], batch.labels, batch.mask, strict=True
        )
        if is_real
    )
    weights = len(case.batches) * _num_bytes(case.variables)
    return Program(run, num_bytes=weights + per_image, counter=jax_counter())


def step(case: Case) -> Program:
    """Return our train step as a training runs it, colours undistorted."""
    config = case.config
    config.data.photometric = False
    optimizer = recipe.make_optimizer(config, recipe.make_schedule(config))
    train_step = recipe.make_step(
        config, case.model, optimizer, ignore_label=IGNORE_LABEL
    )
    variables = jax.tree.map(jnp.asarray, case.variables)
    box = [state.create(variables, optimizer, recipe.make_rules(config))]
    size = np.array(case.images.shape[1:3], np.int32)
    sizes = np.tile(size, (len(case.images), 1))
    batch = {"image": case.images, "label": case.labels, "size": sizes}
    batch = jax.device_put(batch)
    function = jax.jit(train_step, donate_argnums=0)
    compiled, program = _compiled(function, (box[0], batch))

    def run() -> Any:
        box[0], metrics = compiled(box[0], batch)
        return jax.block_until_ready((box[0], metrics))[1]

    return program._replace(run=run, to_numpy=lambda m: np.asarray(m["loss"]))


OURS = {"logits": logits, "labels": labels, "step": step, "evaluation": evaluation}


def _inference(case: Case) -> Inference:
    """Return what the validation of a training applies."""
    variables, bases = jax.device_put((case.variables, case.bases))

    @jax.jit
    def apply(variables: Any, bases: Any, images: jax.Array) -> Any:
        repeated = jnp.broadcast_to(bases, (len(images), *bases.shape[1:]))
        return case.model.apply(variables, images, repeated)

    return Inference.from_config(
        case.config, lambda images: apply(variables, bases, images)
    )


def _compiled(function: Any, arguments: tuple) -> tuple[Callable, Program]:
    """Return the compiled function, and a program that cannot run yet."""
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    plan = compiled.memory_analysis()
    memory = plan.temp_size_in_bytes + plan.output_size_in_bytes
    memory -= plan.alias_size_in_bytes
    program = Program(
        compiled,
        compile_s=seconds,
        num_bytes=float(plan.argument_size_in_bytes + plan.output_size_in_bytes),
        plan_mb=memory / 2**20,
        counter=jax_counter(),
    )
    return compiled, program


def _num_bytes(tree: Any) -> float:
    return float(sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))


def check_same(work: str, ours: np.ndarray, theirs: np.ndarray, dtype: str) -> float:
    """Refuse to time two programs that do different things; return the difference.

    Of logits: the largest, relative to the largest logit. Of labels and confusion
    matrices: the share of pixels, of the latter at least so many. Of losses: relative.

    Raises:
      ValueError: If the outputs differ by more than rounding.
    """
    logit_limit, label_limit = TOLERANCES[dtype]
    if ours.shape != theirs.shape:
        difference, limit = np.inf, 0.0
    elif work == "logits":
        difference = np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))
        limit = logit_limit
    elif work == "labels":
        difference, limit = np.mean(ours != theirs), label_limit
    elif work == "evaluation":
        # A pixel that moves leaves one cell and enters another.
        difference = np.abs(ours - theirs).sum() / 2 / max(theirs.sum(), 1)
        is_same_count = ours.sum() == theirs.sum()
        difference, limit = difference if is_same_count else np.inf, label_limit
    else:
        difference = np.abs(ours - theirs) / np.abs(theirs)
        limit = LOSS_TOLERANCE
    if not difference < limit:
        noun = {"step": "losses", "evaluation": "confusion matrices"}.get(work, work)
        raise ValueError(
            f"{noun} must be equal before they are timed: got a difference of "
            f"{difference:.2g}, above {limit}. Is --against the same network?"
        )
    return float(difference)
