"""Several processes of one run: how they meet, and how an error ends all of them."""

import argparse
import contextlib
import ctypes
import dataclasses
import functools
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from absl import logging as absl_logging

from segnext_jax.cli import command
from segnext_jax.cli.lifeline import Lifeline

# Seconds that processes wait for each other at the start.
_START_TIMEOUT = 300
# Seconds that a failed process has to close its files. It cannot finish a checkpoint
# without the other processes, which may wait for this one for ever.
_CLOSE_TIMEOUT = 20
# Seconds that a process waits after an error of a library, because the lifeline may
# report that another process caused the error.
_CAUSE_TIMEOUT = 3

# Seconds that a process waits for others that have more to do: a month.
_DONE_TIMEOUT = 30 * 86_400

# The lifeline of the run that this process has joined: at most one, as a process joins
# at most one run of `jax.distributed`.
_lifelines: list[Lifeline] = []
# Two threads may end this process at the same time.
_silence = threading.Lock()


@dataclasses.dataclass(frozen=True)
class ProcessOptions:
    """Where the processes of a run meet.

    Attributes:
      is_distributed: Whether there are several processes. Without the other fields
        JAX asks SLURM, Kubernetes, Cloud TPU or Open MPI.
      coordinator: host:port that process 0 listens at; empty to detect it.
      num_processes: Number of processes; None to detect it.
      process_id: Number of this process, from 0; None to detect it.
    """

    is_distributed: bool = False
    coordinator: str = ""
    num_processes: int | None = None
    process_id: int | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> "ProcessOptions":
        """Return what was given for the options of `add_options`."""
        return cls(
            *(options.distributed, options.coordinator),
            *(options.num_processes, options.process_id),
        )

    @property
    def has_others(self) -> bool:
        """Whether there are several processes."""
        return self.is_distributed or bool(self.coordinator)

    def __post_init__(self) -> None:
        """Refuse options that are incomplete or impossible."""
        by_hand = (self.num_processes is not None, self.process_id is not None)
        if (
            self.coordinator
            and not all(by_hand)
            or any(by_hand) > bool(self.coordinator)
        ):
            raise ValueError(
                "--coordinator, --num_processes and --process_id belong together: got "
                f"{self.coordinator or None}, {self.num_processes}, {self.process_id}. "
                "Give all three, or --distributed alone where SLURM, Kubernetes, a TPU "
                "pod or Open MPI started the processes."
            )
        if self.coordinator and ":" not in self.coordinator:
            raise ValueError(
                "--coordinator must be HOST:PORT, of process 0: got "
                f"{self.coordinator!r}."
            )
        if self.num_processes is not None and self.process_id is not None:
            if not 0 <= self.process_id < self.num_processes:
                raise ValueError(
                    f"--process_id must lie in [0, {self.num_processes}): got "
                    f"{self.process_id}."
                )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a process finds the others."""
    several = parser.add_argument_group("several processes")
    several.add_argument(
        "--distributed",
        action="store_true",
        help="started by SLURM, Kubernetes, a TPU pod or Open MPI",
    )
    several.add_argument(
        "--coordinator", default="", help="HOST:PORT of process 0, where nothing did"
    )
    several.add_argument("--num_processes", type=int, help="number of processes")
    several.add_argument("--process_id", type=int, help="number of this process")


@contextlib.contextmanager
def joined(options: ProcessOptions) -> Iterator[None]:
    """Join the other processes of the run while the block runs, if there are others.

    The block must begin before the first use of a device. An error that ends the block
    in one process ends all processes, with exit code 1 (130 of one that a user
    interrupted) and the error's sentence on stderr.

    Raises:
      ValueError: If no launcher that JAX knows started this process.
      ConnectionError: If the other processes did not come in time.
    """
    if not options.has_others:
        yield
        return
    _join(options)
    lifeline = _hold_on()
    try:
        yield
    except BaseException as error:
        _fail(lifeline, error)
        raise
    lifeline.leave()


def wait_for_others(place: str = "end") -> None:
    """Wait until all processes are here, however long some of them work on.

    JAX itself waits five minutes for processes that do not end together, and gloo half
    a minute for one that is silent.

    Args:
      place: Where they meet, once in the life of the processes.
    """
    from jax._src.distributed import global_state

    if global_state.client is not None:
        global_state.client.wait_at_barrier(
            f"segnext_jax/{place}", _DONE_TIMEOUT * 1_000
        )


def fail_soon(error: BaseException) -> None:
    """End all processes of the run, even if this one hangs while it closes its files.

    Call this function where something must be closed before the error leaves `joined`.
    The other processes learn of the error after `_CLOSE_TIMEOUT` seconds at the latest.
    """
    for lifeline in _lifelines:
        timer = threading.Timer(_CLOSE_TIMEOUT, _fail, (lifeline, error))
        timer.daemon = True
        timer.start()


def _fail(lifeline: Lifeline, error: BaseException) -> None:
    """Tell the other processes, and make sure that this process ends without them."""
    import jax

    if not command.is_of_a_user(error):
        # When a process is killed, the exchanges of the others fail with errors of many
        # types. The lifeline says which process was killed.
        time.sleep(_CAUSE_TIMEOUT)
    sentence = command.sentence(error)
    _silence_native_code()
    lifeline.fail(sentence)
    code = command.exit_code(error)
    leave = functools.partial(_leave, jax.process_index(), sentence, code)
    threading.Thread(target=leave, daemon=True).start()


def _leave(process: int, sentence: str, code: int) -> None:
    """End this process after its main thread, which reports the error, has ended.

    Without this JAX would wait five minutes for the other processes, and orbax's
    threads would wait even longer.
    """
    threading.main_thread().join(_CLOSE_TIMEOUT)
    if threading.main_thread().is_alive():
        _end(process, sentence)
    _exit(code)


def _end(process: int, sentence: str) -> None:
    """End this process, whatever its other threads wait for."""
    _silence_native_code()
    sys.stderr.write(f"error: process {process} ended the run: {sentence}\n")
    _exit(1)


def _silence_native_code() -> None:
    """Let nobody but Python write to stderr from here on.

    As soon as process 0 has ended, JAX's own threads report a lost connection. That
    report would stand below the sentence that says why the run ended, or inside it.
    """
    python_handler = absl_logging.get_absl_handler().python_handler
    with _silence:
        if sys.stderr.fileno() != 2:
            return
        sys.stderr.flush()
        ours = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
        if python_handler.stream is sys.stderr:
            python_handler.setStream(ours)
        sys.stderr = ours
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)


def _exit(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _hold_on() -> Lifeline:
    """Connect this process with the others by the lifeline."""
    import jax
    from jax._src.distributed import global_state

    _wait_before_abort()
    client, address = global_state.client, global_state.coordinator_address
    assert client is not None and address is not None  # The processes are connected.
    name = "segnext_jax/lifeline"
    lifeline = Lifeline(jax.process_index(), _end)
    if jax.process_index() == 0:
        client.key_value_set(name, lifeline.listen())
    else:
        invitation = client.blocking_key_value_get(name, 1000 * _START_TIMEOUT)
        host = address.rsplit(":", 1)[0].strip("[]")
        try:
            lifeline.connect(host, invitation)
        except OSError as error:
            logging.getLogger(__name__).warning(
                "Process 0 cannot be reached at %s, port %s (%s): if another process "
                "fails, this one will notice it late. Open the ports between the "
                "machines.",
                *(host, json.loads(invitation)[0], error),
            )
    _lifelines[:] = [lifeline]
    return lifeline


def _wait_before_abort() -> None:
    """Delay an abort by SIGABRT for six seconds.

    JAX aborts a process when process 0 is gone. During the delay the lifeline learns
    that process 0 is gone, and ends the process with a sentence and exit code 1. A
    handler in Python would need locks that the aborting thread may hold. The C
    library's `sleep` needs no locks; it gets the signal's number, 6, as the seconds.
    """
    if os.name != "posix":
        return
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


def _join(options: ProcessOptions) -> None:
    import jax

    try:
        jax.distributed.initialize(
            coordinator_address=options.coordinator or None,
            num_processes=options.num_processes,
            process_id=options.process_id,
            initialization_timeout=_START_TIMEOUT,
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            "--distributed needs processes that SLURM, Kubernetes, a TPU pod or Open "
            f"MPI started, and JAX found none ({error}). Say where process 0 is with "
            "--coordinator=HOST:PORT --num_processes=N --process_id=I."
        ) from error
    except RuntimeError as error:
        raise ConnectionError(
            f"the processes of the run did not meet within {_START_TIMEOUT} s at "
            f"{options.coordinator or 'the address that was detected'} "
            f"({' '.join(str(error).split())[:200]}). Start all of them, and let them "
            "reach that address."
        ) from error
    logging.getLogger(__name__).info(
        "process %d of %d", jax.process_index(), jax.process_count()
    )
