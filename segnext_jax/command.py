"""What all command lines share: logging, and errors in one sentence."""

import argparse
import ctypes
import logging
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence

_PACKAGE = pathlib.Path(__file__).parent


def run(main: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> int:
    """Run a program; return the exit code.

    What a user can cause, files and disks included, ends in one sentence on stderr.
    Any other error keeps its traceback: it is a bug.
    """
    try:
        main(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        if not isinstance(error, OSError) and not _is_raised_here(error):
            raise
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _is_raised_here(error: BaseException) -> bool:
    """Tell our own refusals from errors inside a library, by the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _PACKAGE in pathlib.Path(frames[-1].filename).parents


def overrides(parser: argparse.ArgumentParser, rest: Sequence[str]) -> list[str]:
    """Return ``FIELD=VALUE`` of the ``--config.FIELD=VALUE`` that argparse left over.

    Anything else is an unknown argument: the parser prints its usage and exits with 2.
    """
    prefix = "--config."
    unknown = [text for text in rest if not text.startswith(prefix)]
    if unknown:
        parser.error(
            f"unknown arguments: {' '.join(unknown)}. Fields of the configuration are "
            "written --config.FIELD=VALUE."
        )
    return [text.removeprefix(prefix) for text in rest]


def set_up_compilation_cache() -> None:
    """Keep compiled programs over runs, in the user's cache folder.

    Call it before JAX is imported. ``JAX_COMPILATION_CACHE_DIR`` names another folder,
    or none at all if it is empty. JAX keys the programs by versions, flags and the kind
    of device, and stores those that took more than a second.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(caches) / "segnext_jax" / "compiled"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    # Where devices share a batch, JAX would not find a program with kernels of our own
    # again: it holds addresses. What they stand for is in it as a number
    # (ops/kernels/per_image.py).
    os.environ.setdefault("JAX_REMOVE_CUSTOM_PARTITIONING_PTR_FROM_CACHE_KEY", "1")


# Names of glibc's malloc.h, and values: all memory from one heap, none from mmap, and
# nothing given back.
_MALLOC_OPTIONS = {
    "M_ARENA_MAX": (-8, 1),
    "M_MMAP_MAX": (-4, 0),
    "M_TRIM_THRESHOLD": (-1, -1),
}


def keep_freed_memory() -> bool:
    """Keep freed memory for the next request instead of giving it to the kernel.

    For programs that run the same computation again and again on a CPU: XLA asks for
    all its temporaries at each run, and the kernel clears them page by page
    (BENCHMARKS.md). Memory then stays at its peak.

    Returns:
      Whether it was done: by glibc alone, and not where the user has set its options
      (``MALLOC_...``, ``GLIBC_TUNABLES``) or put another allocator (``LD_PRELOAD``).
    """
    is_users_affair = any(
        name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD")
        for name in os.environ
    )
    if is_users_affair or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return all(library.mallopt(*option) for option in _MALLOC_OPTIONS.values())


def set_up_logging() -> None:
    """Log our own notes and everybody's warnings to stderr, with the time of day."""
    from absl import flags
    from absl import logging as absl_logging

    # absl holds back until somebody has parsed its flags; argparse has parsed ours.
    flags.FLAGS.mark_as_parsed()
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.INFO)
    handler = absl_logging.get_absl_handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(_is_ours_or_grave)


def _is_ours_or_grave(record: logging.LogRecord) -> bool:
    if _PACKAGE in pathlib.Path(record.pathname).parents:
        return True
    # Orbax warns whenever a save waits for the one before.
    is_known = "Waiting for previous save" in record.getMessage()
    return record.levelno >= logging.WARNING and not is_known
