"""Several processes, one run: how they find each other, before JAX sees a device."""

import dataclasses
import logging

import jax

# Seconds that processes wait for each other at the start.
_START_TIMEOUT = 300


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

    def __post_init__(self) -> None:
        """Refuse what is said by halves."""
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


def join(options: ProcessOptions) -> None:
    """Meet the other processes of the run; nothing where there are none.

    Must come before the first use of a device.

    Raises:
        ValueError: No launcher that JAX knows started this process.
        ConnectionError: The others did not come in time.
    """
    if not options.is_distributed and not options.coordinator:
        return
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
