"""What all command lines share: options, logging, and errors in one sentence."""

import argparse
import atexit
import ctypes
import gc
import io
import logging
import os
import pathlib
import re
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segnext_jax.cli.whole_files import NO_ROOM

PROGRAM = "segnext-jax"
ANY_FIELD = (
    "Every field of the configuration is an option: --config.FIELD=VALUE. "
    f"{PROGRAM} configs NAME --print lists them with their meaning."
)

_PACKAGE = pathlib.Path(__file__).parents[1]


# For `Parser`: what asked for --existing=overwrite in earlier versions.
OVERWRITE = {"--overwrite": "--existing=overwrite"}


class _Formatter(argparse.HelpFormatter):
    """Breaks no line within "segnext-jax"."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = textwrap.wrap(text, width, break_on_hyphens=False)
        return "\n".join(indent + line for line in lines)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """The command line of one command; no option can be abbreviated."""

    def __init__(
        self,
        name: str,
        description: str,
        epilog: str | None = None,
        renamed: Mapping[str, str] | None = None,
    ):
        """Describe a command.

        Args:
          name: The name of the command.
          description: What it does.
          epilog: What stands below the options.
          renamed: Options of earlier versions, which are taken but not shown, to those
            that have taken their place.
        """
        super().__init__(
            prog=f"{PROGRAM} {name}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )
        self._renamed = renamed or {}

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        """Parse, with the options of earlier versions."""
        arguments = []
        for argument in sys.argv[1:] if args is None else args:
            option, separator, value = argument.partition("=")
            arguments.append(self._renamed.get(option, option) + separator + value)
        return super().parse_known_args(arguments, namespace)


def run(main: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> int:
    """Run a program; return the exit code.

    What a user can cause, files and disks included, ends in one sentence on stderr.
    Any other error keeps its traceback: it is a bug.
    """
    # XLA writes alarms about slow compilations as errors; its errors that matter are
    # raised, too. Read when jax is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Tracing a network makes objects by the million, hardly any of them garbage.
    gc.set_threshold(50_000, 20, 50)
    # Nor is it looked through once more when the process ends, for a second.
    atexit.register(gc.freeze)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _report_unraisable
    # Closed ones, `>&-`, are None.
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        # A class name may have letters that a terminal has not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads the output, such as `head`, has what it wanted. Python would say so
        # again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt as error:
        sys.stderr.write(f"{sentence(error)}\n")
        return exit_code(error)
    except Exception as error:
        if not is_of_a_user(error):
            raise
        sys.stderr.write(f"error: {sentence(error)}\n")
        return exit_code(error)
    return 0


def exit_code(error: BaseException) -> int:
    """Return the code of a program that an error ended; 130 is Ctrl-C's in shells."""
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def sentence(error: BaseException) -> str:
    """Return an error in a sentence; that of a bug begins with its type."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if _is_of_a_platform(error):
        return (
            "JAX must find the devices that it is to use: JAX_PLATFORMS is "
            f"{os.environ.get('JAX_PLATFORMS', '')!r} ({first_line(error)}). Unset it, "
            "or install what they need: pip install -e '.[cuda]', '.[tpu]'."
        )
    if _is_out_of_memory(error):
        return (
            f"the device must have room for the program: {first_line(error)} Set "
            "config.batch_size or config.evaluation.batch_size lower, or see 'Out of "
            "memory' in docs/troubleshooting.md."
        )
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        what = f"what is written into {error.filename}" if error.filename else "outputs"
        return (
            f"{what} must find room: {error.strerror}. Make room, or write elsewhere."
        )
    return str(error) if is_of_a_user(error) else f"{type(error).__name__}: {error}"


def is_of_a_user(error: BaseException) -> bool:
    """Tell what a user can cause from errors inside a library, which are bugs."""
    if isinstance(error, OSError | KeyboardInterrupt):
        return True
    if _is_of_a_platform(error) or _is_out_of_memory(error):
        return True
    # Our own refusals, not errors inside a library.
    is_expected = isinstance(error, ValueError | FloatingPointError)
    return is_expected and _PACKAGE in _raised_in(error).parents


def _raised_in(error: BaseException) -> pathlib.Path:
    """Return the file of the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    return pathlib.Path(frames[-1].filename if frames else "")


def _is_of_a_platform(error: BaseException) -> bool:
    is_failure = isinstance(error, RuntimeError | AssertionError)
    return is_failure and _raised_in(error).name == "xla_bridge.py"


def _is_out_of_memory(error: BaseException) -> bool:
    is_of_jax = type(error).__name__ == "JaxRuntimeError"  # Not imported for this.
    return is_of_jax and "RESOURCE_EXHAUSTED" in str(error)


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


def parse_size(text: str, option: str, multiple: int) -> tuple[int, int]:
    """Return (height, width) of ``512x768``, or of ``512``.

    Raises:
      ValueError: If the text is no size, or a side is not a multiple of ``multiple``.
    """
    parts = text.split("x") * (1 if "x" in text else 2)
    is_size = len(parts) == 2 and all(part.isdigit() and int(part) for part in parts)
    if not is_size or any(int(part) % multiple for part in parts):
        must = f", both multiples of {multiple}" if multiple > 1 else ""
        fitting = [-(-int(part) // multiple) * multiple for part in parts if is_size]
        height, width = fitting or (512, 512)
        raise ValueError(
            f"{option} must be HEIGHTxWIDTH{must}: got {text!r}. Use "
            f"{option}={height}x{width}."
        )
    height, width = map(int, parts)
    return height, width


def add_existing(parser: argparse.ArgumentParser, *more: str) -> None:
    """Add ``--existing``: what to do about an output that is there.

    Args:
      parser: The command's, with ``renamed=OVERWRITE``.
      more: Choices beside error and overwrite.
    """
    parser.add_argument(
        "--existing",
        choices=("error", *more, "overwrite"),
        default="error",
        help="what to do about outputs that exist (default: error)",
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add ``--checkpoint``, ``--which`` and ``--dataset``: the network that is used."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="a run's workdir, a model folder, a checkpoint file (.pth), the name of a "
        f"published network ({PROGRAM} weights lists them), or hf://user/name",
    )
    add_which(parser)
    parser.add_argument(
        "--dataset", help="data set whose classes a checkpoint file knows"
    )


def add_which(parser: argparse.ArgumentParser, default: str | None = "latest") -> None:
    """Add ``--which``: the checkpoint of a run that is taken."""
    parser.add_argument(
        "--which",
        default=default,
        metavar="latest|best|STEP",
        help="checkpoint of a run: the newest, that with the best mIoU (top-1), or a "
        "step (default: latest)",
    )


def counted(number: int, noun: str) -> str:
    """Return ``"1 device"``, ``"2 devices"``."""
    ending = "es" if noun.endswith("ch") else "s"
    return f"{number:,} {noun}{ending if number != 1 else ''}"


def num_cores() -> int:
    """Return how many cores this process may use; elsewhere than on Linux, all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def set_up_compilation_cache() -> None:
    """Keep compiled programs over runs, in the user's cache folder.

    Call it before JAX is imported. ``JAX_COMPILATION_CACHE_DIR`` names another folder,
    or none at all if it is empty. JAX keys the programs by versions, flags and the kind
    of device, and stores those that took more than a second. Nothing is kept where the
    user has no home, as an id without an account in a container. Where the environment
    asks for several CPU devices, nothing is kept or read unless
    ``JAX_ENABLE_COMPILATION_CACHE`` is set: a program that XLA:CPU has read from a file
    does not order exchanges within a loop and those beside it, and the devices wait for
    each other for ever.
    """
    if _num_cpu_devices() > 1:
        os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
    caches = cache_folder()
    if caches is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(caches / "compiled"))
    # Where devices share a batch, a program with kernels of our own holds addresses, by
    # which JAX would not find it again. The program holds a number for the kernels
    # instead (ops/kernels/per_image.py).
    os.environ.setdefault("JAX_REMOVE_CUSTOM_PARTITIONING_PTR_FROM_CACHE_KEY", "1")


def _num_cpu_devices() -> int:
    """Return how many devices the environment makes of a CPU."""
    flag = r"--xla_force_host_platform_device_count=(\d+)"
    asked = re.findall(flag, os.environ.get("XLA_FLAGS", ""))
    return int((asked or [os.environ.get("JAX_NUM_CPU_DEVICES") or 1])[-1])


def cache_folder() -> pathlib.Path | None:
    """Return our folder in the user's cache folder; None where there is no home."""
    home = os.path.expanduser("~")
    caches = os.environ.get("XDG_CACHE_HOME")
    if not caches and home == "~":
        return None
    return pathlib.Path(caches or pathlib.Path(home) / ".cache") / "segnext_jax"


# Names of glibc's malloc.h, and values: all memory from one heap, none from mmap, and
# nothing given back.
_MALLOC_OPTIONS = {
    "M_ARENA_MAX": (-8, 1),
    "M_MMAP_MAX": (-4, 0),
    "M_TRIM_THRESHOLD": (-1, -1),
}


def keep_freed_memory() -> bool:
    """Keep freed memory for the next request instead of giving it to the kernel.

    Meant for programs that run the same computation again and again on a CPU: XLA asks
    for all temporaries at each run, and the kernel clears them page by page
    (BENCHMARKS.md). The process then keeps its peak of memory.

    Returns:
      Whether it was done: by glibc alone, and not where the user has set its options
      (``MALLOC_...``, ``GLIBC_TUNABLES``) or put another allocator (``LD_PRELOAD``).
    """
    is_set_by_user = any(
        name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD")
        for name in os.environ
    )
    if is_set_by_user or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return all(library.mallopt(*option) for option in _MALLOC_OPTIONS.values())


def set_up_logging() -> None:
    """Log our own notes and everybody's warnings to stderr, with the time of day."""
    from absl import flags
    from absl import logging as absl_logging

    from segnext_jax.cli.progress import AboveBars

    # absl holds back until somebody has parsed its flags; argparse has parsed ours.
    flags.FLAGS.mark_as_parsed()
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.INFO)
    handler = absl_logging.get_absl_handler()
    if sys.stderr.isatty():  # Elsewhere there are no bars.
        handler.python_handler.setStream(AboveBars())
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(_is_ours_or_grave)


def _is_ours_or_grave(record: logging.LogRecord) -> bool:
    if _PACKAGE in pathlib.Path(record.pathname).parents:
        return True
    # Orbax warns whenever a save waits for the one before and of a file that it does
    # not need, and logs the traceback of an error that it raises besides, once in each
    # of its threads. gcsfs does the latter, too.
    told = ("Waiting for previous save", "Metadata file does not exist")
    is_known = any(name in record.pathname for name in ("orbax", "gcsfs")) and (
        record.exc_info or any(text in record.getMessage() for text in told)
    )
    return record.levelno >= logging.WARNING and not is_known


def _report_unraisable(lost: Any) -> None:
    if isinstance(lost.exc_value, KeyboardInterrupt):
        # Ctrl-C in a callback of Python's garbage collector, as JAX has one, or in a
        # finalizer: Python would drop it, and the program would go on. Again, then, but
        # not before this hook has ended.
        interrupt = (os.getpid(), signal.SIGINT)
        again = threading.Timer(0.05, os.kill, interrupt)
        again.daemon = True
        again.start()
        return
    # Where one of many writes fails, orbax raises the error and closes its event loop;
    # tensorstore then fails to report each of the others to the loop. Bytes in memory
    # that could not be written are freed before views of them: as of Python 3.13 each
    # is a BufferError.
    is_closed = str(lost.exc_value) == "Event loop is closed"
    if not is_closed and not isinstance(lost.exc_value, BufferError):
        sys.__unraisablehook__(lost)
