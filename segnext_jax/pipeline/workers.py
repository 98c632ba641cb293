"""Worker processes of a stream of batches: their memory, their start, their death."""

import math
import multiprocessing
import multiprocessing.sharedctypes
import multiprocessing.synchronize
import os
import pathlib
import re
import signal
import threading
from typing import Any

import cv2

# Where Linux keeps the shared memory through which workers pass batches.
_SHARED_MEMORY = pathlib.Path("/dev/shm")
_MEBIBYTE, _GIBIBYTE = 2**20, 2**30


def shared_bytes(num_workers: int, prefetch: int, batch_bytes: int) -> int:
    """Return how much shared memory the batches of workers take at most.

    Grain keeps ``prefetch`` batches of each worker in a queue, and as many behind the
    queue. A worker holds one more batch at either end, and the caller holds the last.
    """
    return (num_workers * (2 * prefetch + 2) + 1) * batch_bytes if num_workers else 0


def check_shared_memory(needed_bytes: int) -> None:
    """Refuse workers whose batches do not fit into the shared memory that is free.

    Docker gives a container 64 MB: without this check the first steps would end by
    SIGBUS in a worker.

    Args:
      needed_bytes: See `shared_bytes`.

    Raises:
      ValueError: If the batches do not fit.
    """
    if _SHARED_MEMORY.is_dir() and needed_bytes > _free_bytes():
        raise ValueError(
            "the worker processes need shared memory for the batches that they make: "
            f"{_state(needed_bytes)}. {_remedy(needed_bytes)}."
        )


def start(worker_index: int, num_workers: int) -> None:
    """Prepare this process to be a worker."""
    # The worker's own threads share the processor already.
    cv2.setNumThreads(1)
    # Ctrl-C reaches all processes of a terminal; the parent ends its workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _look_without_locks()


def _look_without_locks() -> None:
    """Let this process look at events and numbers without their locks.

    Grain's worker looks all the time whether it shall stop. Killed within a look, it
    would leave the lock taken, and its parent, which takes the lock to stop it, would
    wait for ever. A look needs no lock: a semaphore and an int are read whole.
    """
    event: Any = multiprocessing.synchronize.Event
    number: Any = multiprocessing.sharedctypes.Synchronized
    event.is_set = lambda self: not self._flag._semlock._is_zero()
    number.value = property(lambda self: self._obj.value, number.value.fset)


def _end_with_parent() -> None:
    """End this process when its parent has ended, also by SIGKILL.

    When the last process of a program has ended, Python's resource tracker removes the
    shared memory that the processes left. Linux's own notice (PR_SET_PDEATHSIG) would
    come too early: Linux sends it when the thread ends that started the worker, and
    grain has such threads.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def death(error: RuntimeError, needed_bytes: int) -> ChildProcessError | None:
    """Return the sentence for a worker that has died; None: it is another error.

    Args:
      error: What grain raised.
      needed_bytes: See `shared_bytes`.
    """
    found = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
    if not found:
        return None
    code = int(found[1])
    if code > 0:
        return ChildProcessError(
            "a worker process of the input pipeline ended with the error above. Worker "
            "processes import the main file of the program: the work of a script of "
            'your own must stand below `if __name__ == "__main__":`, or set '
            "config.data.num_workers=0."
        )
    if code == -signal.SIGKILL:
        how = "killed (SIGKILL), as the kernel does where memory runs out (dmesg says)"
    elif code == -signal.SIGBUS:
        how = "killed (SIGBUS), as happens where its shared memory is full"
    else:
        how = f"ended with exit code {code}"
    state = f"; {_state(needed_bytes)}" if _SHARED_MEMORY.is_dir() else ""
    return ChildProcessError(
        f"a worker process of the input pipeline was {how}{state}. "
        f"{_remedy(needed_bytes)}."
    )


def _state(needed_bytes: int) -> str:
    return (
        f"up to {math.ceil(needed_bytes / _MEBIBYTE)} MiB of {_SHARED_MEMORY}, of "
        f"which {_free_bytes() // _MEBIBYTE} MiB are free"
    )


def _remedy(needed_bytes: int) -> str:
    size = math.ceil(needed_bytes / _GIBIBYTE)
    return (
        f"Give the container more (docker run --shm-size={size}g; in Kubernetes a "
        f"volume of medium Memory at {_SHARED_MEMORY}), or set config.data.num_workers "
        "or config.data.prefetch_batches lower (num_workers=0 makes the batches in "
        "threads)"
    )


def _free_bytes() -> int:
    state = os.statvfs(_SHARED_MEMORY)
    return state.f_bavail * state.f_frsize
