"""Find a learning rate: `segnext-jax find-lr --config=camvid_tiny`.

A short training in which the rate rises from step to step by one factor. Nothing of it
is kept but a picture of the loss and the rate that it suggests.

Source: Smith, "Cyclical learning rates for training neural networks", WACV 2017,
section 3.3; a tenth of the rate at which the loss is lowest is fastai's rule.
"""

import argparse
import functools
import math
import pathlib
import sys
import typing
from collections.abc import Sequence

from segnext_jax.cli import command, storage

if typing.TYPE_CHECKING:
    from ml_collections import ConfigDict

# Weight of the past in the mean of the losses.
_SMOOTHING = 0.9
# The test ends where the mean is so many times the lowest.
_DIVERGED = 4.0


def main(arguments: Sequence[str], *, is_program: bool = False) -> None:
    """Draw the loss over the learning rate and suggest one; see `--help`.

    Args:
      arguments: The command line's.
      is_program: See `segnext_jax.main.main`.

    Raises:
      ValueError: If the command line or the configuration cannot run.
    """
    options, overrides = _parse(arguments)
    first, last = _range(options.range)
    if options.steps < 2:
        raise ValueError(f"--steps must be at least 2: got {options.steps}.")
    command.set_up_compilation_cache()
    from segnext_jax import config as config_lib
    from segnext_jax.images import charts, pictures

    pictures.check_path(options.output)
    config = config_lib.load(options.config, overrides)
    command.set_up_logging()
    import cv2
    import jax

    from segnext_jax.cli.whole_files import whole_file

    if is_program and jax.default_backend() == "cpu":
        command.keep_freed_memory()  # As a training does.
    losses = measure(config, first, last, options.steps)
    if len(losses) < 2:
        raise ValueError(
            f"--range must begin where a training goes well: got {options.range}, and "
            "the loss was not finite in the first steps. Begin lower."
        )
    best = suggest(losses)
    chart = charts.Chart("loss over the learning rate", {0: losses}, True, best)
    picture = charts.draw([chart], size=(420, 720))
    with whole_file(options.output) as partial:
        cv2.imwrite(str(partial), picture[..., ::-1])
    sys.stdout.write(
        f"Suggested: --config.optimizer.learning_rate={best:.0e}, a tenth of the rate "
        f"at which the loss is lowest. Picture: {options.output}\n"
    )


def measure(
    config: "ConfigDict", first: float, last: float, num_steps: int
) -> list[tuple[float, float]]:
    """Return (learning rate, smoothed loss) until the loss is many times the lowest.

    Args:
      config: The configuration; its schedule is not used.
      first: Rate of the first step.
      last: Rate of the last step.
      num_steps: Steps from first to last.

    Raises:
      ValueError: See `segnext_jax.training.run.Run.open`.
      FileNotFoundError: If the data set is not prepared.
    """
    import jax

    from segnext_jax.checkpoints import run_folder
    from segnext_jax.cli.progress import SECONDS_PER_LINE, Progress
    from segnext_jax.ops import sharding
    from segnext_jax.training import state as state_lib
    from segnext_jax.training.optimizer import Optimizer
    from segnext_jax.training.run import initial_variables
    from segnext_jax.training.step import make_step
    from segnext_jax.training.tasks.task import make_task

    config = run_folder.with_classes(config, pathlib.Path())
    mesh = sharding.make_mesh()
    sharding.check_batch_size(
        config.batch_size, mesh, "batch_size", config.accumulate_steps
    )
    task = make_task(config, mesh)

    def rate(step):
        return first * (last / first) ** (step / (num_steps - 1))

    optimizer = Optimizer.from_config(config, rate)
    state = state_lib.create(initial_variables(config, task.model), optimizer)
    state = sharding.replicate(state, mesh)
    step = make_step(
        *(task.model, optimizer, task.prepare, config), sharding.replicated(mesh)
    )
    train_step = jax.jit(step, donate_argnums=0)
    progress = Progress(num_steps, 0, "find-lr", SECONDS_PER_LINE)
    losses: list[tuple[float, float]] = []
    mean, lowest = 0.0, math.inf
    with task.make_loader() as loader:
        for number in range(num_steps):
            batch = sharding.shard_batch(next(loader), mesh)
            state, metrics = train_step(state, batch)
            loss = float(metrics["loss"])
            if not math.isfinite(loss):
                break
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            # The first means lack a past.
            smooth = mean / (1 - _SMOOTHING ** (number + 1))
            lowest = min(lowest, smooth)
            losses.append((rate(number), smooth))
            progress.advance()
            progress.report(number + 1, {"loss": f"{smooth:.4f}"})
            if smooth > _DIVERGED * lowest:
                break
    progress.close()
    return losses


def suggest(losses: Sequence[tuple[float, float]]) -> float:
    """Return a tenth of the rate with the lowest loss, to one digit."""
    lowest, _ = min(losses, key=lambda one: one[1])
    return float(f"{lowest / 10:.0e}")


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = command.Parser(
        "find-lr",
        "Suggest a learning rate by a short training in which it rises; draw the loss.",
        f"{command.ANY_FIELD} The rate is that of groups with factor 1, as "
        "config.optimizer.learning_rate is.",
    )
    parser.add_argument(
        "--config", required=True, help="name of a shipped config, or a file"
    )
    parser.add_argument(
        "--range",
        default="1e-6,1e-1",
        metavar="FIRST,LAST",
        help="learning rates of the first and the last step (default: 1e-6,1e-1)",
    )
    parser.add_argument(
        "--steps", type=int, default=100, help="number of steps (default: 100)"
    )
    parser.add_argument(
        "--output",
        type=storage.as_path,
        default=pathlib.Path("learning_rate.png"),
        help="picture to write (default: learning_rate.png)",
    )
    options, rest = parser.parse_known_args(arguments)
    return options, command.overrides(parser, rest)


def _range(text: str) -> tuple[float, float]:
    try:
        first, last = map(float, text.split(","))
        is_range = 0 < first < last < math.inf
    except ValueError:
        is_range = False
    if not is_range:
        raise ValueError(
            "--range must be two rates above 0, the lower one first: got "
            f"{text!r}. Use --range=1e-6,1e-1."
        )
    return first, last


if __name__ == "__main__":
    program = functools.partial(main, is_program=True)
    sys.exit(command.run(program, sys.argv[1:]))
