"""Break claims of the code one at a time: does a test of its file notice?

    python -m tests.mutants             # all, in about 20 minutes on 2 cores
    python -m tests.mutants progress    # those whose path holds a text

Each mutant replaces a text that its file holds once. The tests named beside it run in
a copy of the checkout, and at least one must fail. Exits with 1 if all tests pass for
a mutant, or its text is no longer there: then change the text, or remove the mutant.
"""

import contextlib
import functools
import multiprocessing
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from tests import conftest  # Sets what JAX reads when it is imported.

ROOT = conftest.ROOT
# Each mutant is tested in a fork of a process that has these.
PRELOADED = ("jax", "flax.linen", "optax", "orbax.checkpoint", "cv2", "torch")
_SERVER = multiprocessing.get_context("forkserver")
FOLDERS = ("benchmarks", "configs", "data", "segnext_jax", "tests", "pyproject.toml")


class Mutant(NamedTuple):
    """One broken claim.

    Attributes:
      path: The file, in segnext_jax/.
      old: A text that it holds once.
      new: What is put in its place.
      tests: Files or folders in tests/ that must notice; empty: the file's own.
    """

    path: str
    old: str
    new: str
    tests: str = ""


MUTANTS = tuple(
    Mutant(*fields)
    for fields in (
        # The terminal: bugs keep their traceback, progress tells the truth.
        ("cli/command.py", "if not is_of_a_user(error):", "if False:"),
        ("cli/command.py", "bool(frames) and _PACKAGE", "bool(frames) or _PACKAGE"),
        ("cli/progress.py", "step - self._first - 1", "step - self._first"),
        ("cli/progress.py", "step - self._first - 1", "step - 1"),
        ("cli/progress.py", "* (self._total - step)", "* self._total"),
        ("cli/progress.py", "{minutes:02d}:{seconds:02d}", "{minutes}:{seconds:02d}"),
        ("cli/whole_files.py", "partial.unlink(missing_ok=True)", "pass"),
        ("cli/whole_files.py", "shutil.copymode(path, partial)", "pass"),
        ("cli/download.py", 'request.add_header("If-Range", validator)', "pass"),
        ("cli/download.py", "found.startswith(expected)", "expected in found"),
        ("cli/download.py", 'etag and not etag.startswith("W/")', "etag"),
        # Configuration and run folder: what may change in a run, what cannot be.
        ("config/__init__.py", "if field.is_resumable", "if True", "config"),
        (
            "config/fields/evaluation.py",
            "used_by=EVALUATION, is_resumable=True",
            "used_by=EVALUATION",
            "config",
        ),
        (
            "config/rules.py",
            "cooldown_steps >= config.num_steps > 0",
            "cooldown_steps > config.num_steps > 0",
            "config",
        ),
        ("config/rules.py", "any(s > w", "any(s >= w", "config"),
        (
            "config/kinds.py",
            "above < value < below",
            "above <= value < below",
            "config",
        ),
        ("checkpoints/run_folder.py", 'del sizes["drop_path_rate"]', "pass"),
        ("checkpoints/lock.py", "fcntl.LOCK_EX", "fcntl.LOCK_SH"),
        ("checkpoints/lock.py", "if not is_there:", "if False:"),
        (
            "checkpoints/best.py",
            "(self._by_step[step], step)",
            "(self._by_step[step], -step)",
            "checkpoints/test_checkpoints.py",
        ),
        # Pictures and data: what reaches the network, and what is refused.
        (
            "images/label_png.py",
            "np.zeros((256, 3), np.uint8)",
            "np.zeros((len(colours), 3), np.uint8)",
        ),
        ("images/label_png.py", "or not stream.eof", ""),
        (
            "datasets/class_table.py",
            "int(part[1]) == i for",
            "int(part[1]) == i + 1 for",
        ),
        ("datasets/class_table.py", "max(colour) > 255", "max(colour) > 256"),
        (
            "preparation/archives.py",
            'part not in ("", ".", "..")',
            'part not in ("", ".")',
        ),
        ("preparation/archives.py", "zlib.crc32(contents) != self.checksum", "False"),
        (
            "check_dataset/class_findings.py",
            "train.num_images < val.num_images",
            "train.num_images > val.num_images",
            "check_dataset",
        ),
        (
            "check_dataset/findings.py",
            "fact.orientation != 1",
            "fact.orientation > 8",
            "check_dataset",
        ),
        # The input pipeline: the official draws, from streams of their own.
        (
            "pipeline/order.py",
            "default_rng((seed, _ORDER_STREAM, epoch))",
            "default_rng((seed, _ORDER_STREAM, 0))",
        ),
        (
            "pipeline/order.py",
            "default_rng((seed, _AUGMENTATION_STREAM, place))",
            "default_rng((seed, _ORDER_STREAM, place))",
        ),
        ("pipeline/geometry.py", "int(side * factor + 0.5)", "round(side * factor)"),
        (
            "pipeline/geometry.py",
            "if share >= max_class_share:",
            "if share > max_class_share:",
        ),
        (
            "pipeline/class_sampling.py",
            "counts[:, occurs] > 0",
            "counts[:, occurs] > 1",
        ),
        # Evaluation: exact counts, means over what occurs.
        (
            "evaluation/counting.py",
            "of_labels & of_prediction & (labels",
            "of_labels & (labels",
        ),
        (
            "evaluation/counting.py",
            "boundary_region(labels, width) & is_counted",
            "boundary_region(labels, width)",
        ),
        ("evaluation/counting.py", "max(1, round(ratio", "max(0, round(ratio"),
        (
            "evaluation/metrics.py",
            "_ratio(hits, union), _ratio(hits, labelled)",
            "_ratio(hits, union), _ratio(hits, predicted)",
        ),
        ("evaluation/resampling.py", "min(i * stride, length - window)", "i * stride"),
        (
            "evaluation/resampling.py",
            "matrix[::-1] if self.is_mirrored",
            "matrix if self.is_mirrored",
        ),
        # Training: schedules, AdamW, losses, what is measured on the way.
        (
            "training/schedule.py",
            "progress + warmup_ratio * (1 - progress)",
            "progress",
        ),
        ("training/schedule.py", "jnp.where(progress < 1, share, 0)", "share"),
        (
            "training/optimizer.py",
            "_one_minus_power(beta2, count)",
            "1 - jnp.float32(beta2) ** count",
        ),
        (
            "training/optimizer.py",
            "u + weight_decay * rule.decay_multiplier * p",
            "u + weight_decay * p",
        ),
        (
            "training/monitor/meter.py",
            "self._batch_size * num_timed / elapsed",
            "self._batch_size * len(steps) / elapsed",
        ),
        (
            "training/monitor/meter.py",
            "self._schedule(steps[-1] - 1)",
            "self._schedule(steps[-1])",
        ),
        (
            "training/monitor/broken_steps.py",
            "image_ids(number - 1)",
            "image_ids(number)",
        ),
        (
            "training/monitor/broken_steps.py",
            "self._count <= self._num_allowed",
            "self._count < self._num_allowed",
        ),
        (
            "training/monitor/profiler.py",
            "step >= self._last",
            "step > self._last",
            "training/monitor",
        ),
        (
            "training/monitor/profiler.py",
            "step == self._first",
            "step == self._first + 1",
            "training/monitor",
        ),
        ("ops/drop_path.py", "return kept / keep", "return 1.0 * kept"),
        ("ops/losses.py", "(1 - label_smoothing) * values", "values"),
        ("ops/photometric.py", "use_contrast & ~contrast_first", "use_contrast"),
        (
            "ops/photometric.py",
            "(), -HUE_DELTA, HUE_DELTA, jnp",
            "(), -HUE_DELTA, HUE_DELTA + 1, jnp",
        ),
        # Weights: averaged if they are of one network.
        ("convert/averaging.py", "classes, variant.rank", "classes, 0"),
    )
)


def survives(mutant: Mutant, folder: pathlib.Path) -> str:
    """Return what is wrong with a mutant; empty: a test noticed.

    Args:
      mutant: The claim to break.
      folder: A copy of the checkout, whole again afterwards.
    """
    path = folder / "segnext_jax" / mutant.path
    text = path.read_text()
    if text.count(mutant.old) != 1:
        return f"its text is there {text.count(mutant.old)} times"
    broken = text.replace(mutant.old, mutant.new)
    compile(broken, path, "exec")  # A wrong claim, not wrong Python.
    own = pathlib.PurePath(mutant.path)
    names = mutant.tests or str(own.with_name(f"test_{own.name}"))
    if code := _test_whole(names, folder):
        return f"without it pytest ends with {code}"
    path.write_text(broken)
    code = _test(names, folder)
    path.write_text(text)
    # 1: tests have failed.
    return "" if code == 1 else f"pytest ends with {code}"


def _test(names: str, folder: pathlib.Path) -> int | None:
    process = _SERVER.Process(target=_run, args=(names.split(), folder))
    process.start()
    process.join()
    return process.exitcode


# What fails of itself notices nothing.
_test_whole = functools.cache(_test)


def _run(names: Sequence[str], folder: pathlib.Path) -> None:
    """Run tests of a copy; exit with pytest's code."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        tests = [f"tests/{name}" for name in names]
        code = pytest.main(["-x", "-q", "-m", "not slow", *tests])
    sys.exit(int(code))


def main(arguments: Sequence[str]) -> int:
    """Try the mutants; return the exit code."""
    chosen = [m for m in MUTANTS if all(text in m.path for text in arguments)]
    _SERVER.set_forkserver_preload(list(PRELOADED))
    num_alive = 0
    with tempfile.TemporaryDirectory(prefix="mutants_") as name:
        folder = pathlib.Path(name)
        for part in FOLDERS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        for mutant in chosen:
            fault = survives(mutant, folder)
            num_alive += bool(fault)
            said = f"ALIVE ({fault})" if fault else "noticed"
            sys.stdout.write(f"{said}: {mutant.path}: {mutant.old}\n")
            sys.stdout.flush()
    conftest.pytest_sessionfinish(exitstatus=1)
    sys.stdout.write(f"{len(chosen) - num_alive} of {len(chosen)} noticed\n")
    return int(num_alive > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
