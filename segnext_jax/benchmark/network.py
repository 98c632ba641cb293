"""Time and memory of the network: forward, train step, and time to the first result.

Ours and PyTorch's (``--against``) have the same weights, images and NMF bases and take
turns; before that their outputs are compared. The train step draws its own random
numbers on both sides.
"""

import argparse
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from segnext_jax.benchmark import turns
from segnext_jax.benchmark.pytorch import FORMS, Opponent
from segnext_jax.benchmark.report import Report
from segnext_jax.config import base_config
from segnext_jax.describe import count_macs
from segnext_jax.evaluation.inference import Inference
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import VARIANTS, SegNeXt
from segnext_jax.pipeline import EvaluationBatch
from segnext_jax.pipeline.fitting import FittedSize
from segnext_jax.training import recipe, state

# Largest relative difference of logits that is rounding, and share of pixels whose best
# class may differ: two classes of random weights are often near each other.
TOLERANCES = {"float32": (1e-3, 1e-3), "bfloat16": (0.1, 0.1)}


class Case(NamedTuple):
    """A network and what it gets; images are RGB bytes."""

    model: SegNeXt
    variables: dict[str, Any]
    bases: np.ndarray
    images: np.ndarray
    normalized: np.ndarray
    labels: np.ndarray
    config: Any


class Program(NamedTuple):
    """Something to be timed.

    Attributes:
      run: Runs once, returns when the result is there.
      first_s: Seconds to the first result: tracing, compilation, one run.
      bytes: Of arguments and results, each of which must be read or written once.
      memory_mb: Of results and temporaries, by the compiler's plan.
    """

    run: Callable[[], Any]
    first_s: float
    bytes: float | None = None
    memory_mb: float | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that forward, train and compile share."""
    parser.add_argument("--variant", choices=VARIANTS, default="tiny")
    parser.add_argument(
        "--size", default="512x512", help="HEIGHTxWIDTH, multiples of 32"
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--dtype", choices=TOLERANCES, default="float32")
    parser.add_argument(
        "--depthwise", help="formulation of depthwise convolutions; default: config's"
    )
    parser.add_argument("--rounds", type=int, default=11, help="turns of each program")
    parser.add_argument("--against", help="Python file with the network in PyTorch")
    parser.add_argument(
        "--torch_forms",
        choices=FORMS,
        nargs="*",
        default=["eager", "channels_last"],
        help="how PyTorch runs it; compile takes minutes",
    )


def make_case(options: argparse.Namespace) -> Case:
    """Draw weights and images.

    Raises:
      ValueError: If the size is not two multiples of 32, or ``--against`` is no file.
    """
    if options.against and not pathlib.Path(options.against).is_file():
        raise ValueError(
            "--against must be a Python file with the network in PyTorch: got "
            f"{options.against}, which is no file."
        )
    parts = options.size.split("x")
    if len(parts) != 2 or not all(p.isdigit() and int(p) % 32 == 0 for p in parts):
        raise ValueError(
            "--size must be HEIGHTxWIDTH, both multiples of 32: got "
            f"{options.size!r}. Use --size=512x512."
        )
    height, width = map(int, parts)
    config = base_config()
    config.model.variant = options.variant
    config.model.dtype = options.dtype
    if options.depthwise:
        config.model.depthwise = options.depthwise
    model = SegNeXt.from_config(config.model, options.classes)
    variables = initialize(model, seed=0)
    # At 0.01 a wrong branch would hide in the rounding; at 0.2 the products of the 21
    # blocks of the base variant overflow.
    variables["params"] = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 4 if "layer_scale" in str(path[-1]) else leaf,
        variables["params"],
    )
    generator = np.random.default_rng(0)
    shape = (options.batch, height, width)
    images = generator.integers(0, 256, (*shape, 3), np.uint8)
    mean, std = np.float32(config.data.mean), np.float32(config.data.std)
    bases = np.asarray(model.fixed_bases(0))
    return Case(
        model,
        variables,
        np.repeat(bases, options.batch, axis=0),
        images,
        (images - mean) / std,
        generator.integers(0, options.classes, shape).astype(np.uint8),
        config,
    )


def forward_logits(case: Case) -> Program:
    """Return our network from normalised images to logits at 1/8."""
    arguments = jax.device_put((case.variables, case.normalized, case.bases))
    return _compiled(jax.jit(case.model.apply), arguments)


def forward_labels(case: Case) -> Program:
    """Return our way from images in memory to label maps of their size."""
    variables, bases = jax.device_put((case.variables, case.bases))
    apply = jax.jit(lambda images: case.model.apply(variables, images, bases))
    is_cpu = jax.default_backend() == "cpu"
    inference = Inference(
        apply,
        mean=case.config.data.mean,
        std=case.config.data.std,
        tile_bytes=(8 if is_cpu else 64) * 2**20,
    )
    size = case.images.shape[1:3]
    count = len(case.images)
    batch = EvaluationBatch(
        images=(case.images,),
        fitted_sizes=((FittedSize(inner=size, outer=size),) * count,),
        image_sizes=(size,) * count,
        first_row=0,
        labels=tuple(case.labels),
        mask=np.ones(count, bool),
        image_ids=("",) * count,
    )
    start = time.perf_counter()
    inference.label_maps(batch)
    first = time.perf_counter() - start
    return Program(lambda: np.stack(inference.label_maps(batch)), first)


def train_step(case: Case) -> Program:
    """Return our train step as a training runs it, colours undistorted."""
    config = case.config
    config.data.photometric = False
    schedule = recipe.make_schedule(config)
    optimizer = recipe.make_optimizer(config, schedule)
    step = recipe.make_step(config, case.model, optimizer, ignore_label=255)
    variables = jax.tree.map(jnp.asarray, case.variables)
    box = [state.create(variables, optimizer, recipe.make_rules(config))]
    sizes = np.tile(np.int32(case.images.shape[1:3]), (len(case.images), 1))
    batch = {"image": case.images, "label": case.labels, "size": sizes}
    batch = jax.device_put(batch)
    program = _compiled(jax.jit(step, donate_argnums=0), (box[0], batch), run_once=None)
    compiled = program.run

    def run() -> Any:
        box[0], metrics = compiled(box[0], batch)
        return jax.block_until_ready((box[0], metrics))[1]

    start = time.perf_counter()
    run()
    first = program.first_s + time.perf_counter() - start
    return program._replace(run=run, first_s=first)


def _compiled(function: Any, arguments: tuple, run_once: Any = True) -> Program:
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()

    def run() -> Any:
        return jax.block_until_ready(compiled(*arguments))

    if run_once:
        run()
    first = time.perf_counter() - start
    plan = compiled.memory_analysis()
    memory = plan.temp_size_in_bytes + plan.output_size_in_bytes
    memory -= plan.alias_size_in_bytes
    return Program(
        run if run_once else compiled,
        first,
        float(plan.argument_size_in_bytes + plan.output_size_in_bytes),
        memory / 2**20,
    )


def run_forward(options: argparse.Namespace) -> Report:
    """Measure the network to logits, and from image to label map."""
    case = make_case(options)
    report = _report(options, "Forward")
    peaks = turns.measure_peaks(options.dtype)
    for output in ("logits", "labels"):
        ours = forward_logits(case) if output == "logits" else forward_labels(case)
        programs, opponents = {"ours": ours}, {}
        for form, theirs in _opponents(options, case):
            run, first = theirs.forward(
                case.normalized, case.bases, to_labels=output == "labels"
            )
            _check(output, ours.run(), theirs.to_numpy(run()), options.dtype)
            programs[f"torch {form}"] = Program(run, first)
            opponents[f"torch {form}"] = theirs
        flops = _flops(case)
        report.rows += _rows(output, options, programs, opponents, peaks, flops)
    report.notes.append(str(peaks))
    return report


def run_train(options: argparse.Namespace) -> Report:
    """Measure the train step."""
    case = make_case(options)
    report = _report(options, "Train step")
    peaks = turns.measure_peaks(options.dtype)
    programs, opponents = {"ours": train_step(case)}, {}
    for form, theirs in _opponents(options, case):
        run, first = theirs.train_step(case.images / np.float32(255), case.labels, 1e-5)
        programs[f"torch {form}"] = Program(run, first)
        opponents[f"torch {form}"] = theirs
    # Backward: products of the gradient with weights, and with activations.
    flops = 3 * _flops(case)
    report.rows = _rows("step", options, programs, opponents, peaks, flops)
    report.notes.append(str(peaks))
    return report


def run_compile(options: argparse.Namespace) -> Report:
    """Measure the seconds to the first result of a process that knows nothing."""
    # No compiled program of an earlier run may be found.
    jax.config.update("jax_enable_compilation_cache", False)
    case = make_case(options)
    report = _report(options, "Time to the first result")
    ours = {"logits": forward_logits, "step": train_step}
    for name, make in ours.items():
        row: dict[str, Any] = {"work": name, "program": "ours"}
        report.rows.append(row | {"first s": make(case).first_s})
        for form, theirs in _opponents(options, case):
            if name == "logits":
                _, first = theirs.forward(case.normalized, case.bases, False)
            else:
                _, first = theirs.train_step(case.normalized, case.labels, 1e-5)
            row = {"work": name, "program": f"torch {form}", "first s": first}
            report.rows.append(row)
    return report


def _report(options: argparse.Namespace, title: str) -> Report:
    device = jax.devices()[0].device_kind
    return Report(
        f"{title}: {options.variant}, {options.batch}x{options.size}, {options.dtype}, "
        f"{device}, {options.rounds} rounds in turn",
        [],
    )


def _opponents(options: argparse.Namespace, case: Case):
    if not options.against:
        return
    for form in options.torch_forms:
        yield (
            form,
            Opponent(
                options.against,
                form,
                options.variant,
                options.classes,
                case.variables,
                options.dtype,
            ),
        )


def _flops(case: Case) -> float:
    size = case.images.shape[1:3]
    return 2.0 * len(case.images) * sum(count_macs(case.model, size).values())


def _check(output: str, ours: Any, theirs: np.ndarray, dtype: str) -> None:
    """Refuse to time two programs that do different things.

    Raises:
      ValueError: If the outputs differ by more than rounding.
    """
    ours = np.asarray(ours).astype(np.float32)
    logit_limit, label_limit = TOLERANCES[dtype]
    if output == "logits":
        difference = np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))
        limit = logit_limit
    else:
        difference, limit = np.mean(ours != theirs), label_limit
    if not difference < limit:
        raise ValueError(
            f"{output} must be equal before they are timed: got a difference of "
            f"{difference:.2g}, above {limit}. Is --against the same network?"
        )


def _rows(
    work: str,
    options: argparse.Namespace,
    programs: dict[str, Program],
    opponents: dict[str, Opponent],
    peaks: turns.Peaks,
    flops: float,
) -> list[dict[str, Any]]:
    lifted = {
        name: turns.memory_mb(program.run)
        if name not in opponents or opponents[name].device == "cpu"
        else opponents[name].device_peak_mb(program.run)
        for name, program in programs.items()
    }
    times = turns.take_turns(
        {name: program.run for name, program in programs.items()}, options.rounds
    )
    rows = [
        {"work": work, "program": name, **times[name].to_row()} for name in programs
    ]
    # The same work for all.
    num_bytes = programs["ours"].bytes
    best = min((row["median ms"] for row in rows[1:]), default=None)
    for row, (name, program) in zip(rows, programs.items(), strict=True):
        row["memory MB"] = lifted[name] or program.memory_mb
        row["first s"] = program.first_s
        row["ratio to best torch"] = row["median ms"] / best if best else None
        if num_bytes:
            bound = 1e3 * peaks.bound_s(flops, num_bytes)
            row["share of roofline"] = bound / row["median ms"]
    return rows
