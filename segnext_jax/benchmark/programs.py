"""Programs to be timed: a network's, and the input of its training."""

import dataclasses
import functools
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.evaluation.batch import FittedSize, LabelledBatch
from segnext_jax.evaluation.inference import Inference
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.ops import sharding
from segnext_jax.training import state
from segnext_jax.training.optimizer import Optimizer
from segnext_jax.training.step import make_step
from segnext_jax.training.tasks.segmentation_step import segmentation_batch
from segnext_jax.training.tasks.task import TASKS

IGNORE_LABEL = 255
# Seconds; onnxruntime waits awake for some hundredths.
_PAUSE = 0.1


def measure(what: str, config: Any, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each program.

    Args:
      what: ``"forward"``, ``"train"`` or ``"input"``.
      config: The configuration.
      rounds: Runs that count.
    """
    if what == "input":
        mesh = sharding.make_mesh(devices=jax.local_devices()[:1])
        task = TASKS[config.task](config, mesh)
        with task.make_loader() as loader:
            times = take_turns({what: lambda: next(loader)}, rounds)
        return [{"what": what} | times[what].columns(config.batch_size)]
    num_classes = resolve_spec(config.data).num_classes
    model = SegNeXt.from_config(config.model, num_classes)
    variables = initialize(model, seed=0)
    batch = random_batch(config.batch_size, config.data.crop_size, num_classes)
    if what == "train":
        programs = {"train step": train_step(config, model, variables, batch)}
    else:
        programs = {
            "logits": logits(config, model, variables, batch),
            "label maps": label_maps(config, model, variables, batch),
        }
    times = take_turns({name: p.run for name, p in programs.items()}, rounds)
    return [
        {"what": name, **times[name].columns(config.batch_size)}
        | {"compilation s": program.compile_s, "plan MB": program.plan_mb}
        for name, program in programs.items()
    ]


class Program(NamedTuple):
    """Something to be timed.

    Attributes:
      run: Runs once, returns when the result is there.
      compiled: What runs; None: more than one program.
      compile_s: Seconds of tracing and compilation; None: the first run holds them.
    """

    run: Callable[[], Any]
    compiled: Any = None
    compile_s: float | None = None

    @property
    def plan_mb(self) -> float | None:
        """Results and temporaries, by the compiler's plan."""
        if self.compiled is None:
            return None
        plan = self.compiled.memory_analysis()
        results = plan.output_size_in_bytes - plan.alias_size_in_bytes
        return (plan.temp_size_in_bytes + results) / 2**20


def logits(config: Any, model: Any, variables: Any, batch: LabelledBatch) -> Program:
    """Return the network from normalised images to logits at 1/8 of their size."""
    images = batch.images[0] - np.float32(config.data.mean)
    images /= np.float32(config.data.std)
    (draw,) = model.draws().values()
    arguments = jax.device_put((variables, images, draw))
    compiled, seconds = _compile(jax.jit(model.apply), arguments)
    return Program(
        lambda: jax.block_until_ready(compiled(*arguments)), compiled, seconds
    )


def label_maps(
    config: Any, model: Any, variables: Any, batch: LabelledBatch
) -> Program:
    """Return the way from bytes of images to label maps of their size, on the host."""
    inference = make_inference(config, model, variables)
    return Program(lambda: np.stack(inference.label_maps(batch)))


def make_inference(config: Any, model: Any, variables: Any) -> Inference:
    """Return what the validation of a training applies."""
    (draw,) = model.draws().values()
    variables, draw = jax.device_put((variables, draw))

    @jax.jit
    def apply(variables: Any, draw: Any, images: jax.Array) -> Any:
        return model.apply(variables, images, draw)

    return Inference.from_config(config, functools.partial(apply, variables, draw))


def train_step(
    config: Any, model: Any, variables: Any, batch: LabelledBatch
) -> Program:
    """Return the train step on images and labels that are on the device."""
    images, labels = batch.images[0], np.stack(batch.labels)
    optimizer = Optimizer.from_config(config)
    prepare = segmentation_batch(config, IGNORE_LABEL)
    step_fn = make_step(model, optimizer, prepare, config)
    box = [state.create(jax.device_put(variables), optimizer)]
    sizes = np.tile(np.array(images.shape[1:3], np.int32), (len(images), 1))
    inputs = jax.device_put({"image": images, "label": labels, "size": sizes})
    compiled, seconds = _compile(jax.jit(step_fn, donate_argnums=0), (box[0], inputs))

    def run() -> Any:
        box[0], metrics = compiled(box[0], inputs)
        return jax.block_until_ready((box[0], metrics))[1]

    return Program(run, compiled, seconds)


def _compile(function: Any, arguments: tuple) -> tuple[Any, float]:
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def random_batch(
    batch_size: int, size: Sequence[int], num_classes: int
) -> LabelledBatch:
    """Draw images that are network inputs already, and label maps."""
    height, width = size
    generator = np.random.default_rng(0)
    shape = (batch_size, height, width)
    images = generator.integers(0, 256, (*shape, 3), np.uint8)
    labels = generator.integers(0, num_classes, shape).astype(np.uint8)
    return LabelledBatch(
        images=(images,),
        fitted_sizes=((FittedSize(inner=shape[1:], outer=shape[1:]),) * batch_size,),
        image_sizes=(shape[1:],) * batch_size,
        first_row=0,
        labels=tuple(labels),
        mask=np.ones(batch_size, bool),
        image_ids=tuple(map(str, range(batch_size))),
    )


@dataclasses.dataclass
class Times:
    """Seconds of each run of a program: by the clock, and of all its threads."""

    wall: list[float] = dataclasses.field(default_factory=list)
    processor: list[float] = dataclasses.field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Median by the clock, in ms."""
        return 1e3 * statistics.median(self.wall)

    def columns(self, num_images: int) -> dict[str, float]:
        """Return the columns of a table; spread: what the clock varied by."""
        return {
            "median ms": self.median_ms,
            "spread ms": 1e3 * (max(self.wall) - min(self.wall)),
            "processor ms": 1e3 * statistics.median(self.processor),
            "images/s": 1e3 * num_images / self.median_ms,
        }


def take_turns(
    programs: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 2
) -> dict[str, Times]:
    """Run all programs once a round, so that what disturbs one disturbs all.

    Each begins when the threads of the one before have gone to sleep: those of
    onnxruntime and OpenMP wait for more work awake, on the cores of the next program.

    Args:
      programs: By name; each runs once and returns when its result is there.
      rounds: Runs of each that count.
      warm_up: Runs before them that do not.
    """
    times = {name: Times() for name in programs}
    for index in range(warm_up + rounds):
        for name, program in programs.items():
            time.sleep(_PAUSE)
            wall, processor = time.perf_counter(), time.process_time()
            program()
            if index >= warm_up:
                times[name].wall.append(time.perf_counter() - wall)
                times[name].processor.append(time.process_time() - processor)
    return times


def table_line(cells: Sequence[Any]) -> str:
    """Return a line of a table in Markdown, numbers with three digits."""

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3g}" if value < 100 else f"{value:.0f}"
        return "" if value is None else str(value)

    return f"| {' | '.join(map(text, cells))} |\n"


def machine() -> str:
    """Return what measurements depend on besides the code."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    processor = (names or [platform.processor() or platform.machine()])[0]
    return (
        f"{jax.device_count()} x {jax.devices()[0].device_kind}, {processor}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"jax {jax.__version__}"
    )
