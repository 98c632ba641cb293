"""Malformed inputs through each door, in children whose time and memory are watched.

A door is a file of `doors/`: `generate(rng, folder)` writes one input and returns how
it is used and whether acceptance would be wrong. To add one, add a file.
"""

import collections
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

ROOT = pathlib.Path(__file__).parents[2]
DOORS = sorted(p.stem for p in (pathlib.Path(__file__).parent / "doors").glob("*.py"))
# Of one input. A machine that does other things makes the wall's clock unfair: there it
# is for what hangs.
MAX_CPU_SECONDS = 10
MAX_WALL_SECONDS = 40
MAX_BYTES = 2 * 2**30
GOOD = ("accepted", "refused")
BAD = ("traceback", "too slow", "too much memory", "executed", "wrongly accepted")
_STARTING_SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of one input.

    Attributes:
      door: Name of the door.
      number: Number of the input; with the seed it makes the input again.
      what: How the input was made.
      outcome: One of `GOOD` or `BAD`.
      words: What a user reads, or the error.
    """

    door: str
    number: int
    what: str
    outcome: str
    words: str


def run(num_inputs: int, seed: int, doors: Sequence[str] = DOORS) -> list[Result]:
    """Try inputs, as many of each door.

    Args:
      num_inputs: Their number, of all doors together.
      seed: The seed of all that is random.
      doors: Names of the doors.
    """
    count = -(-num_inputs // len(doors))
    todo = [(door, 0, count) for door in doors]
    results: list[Result] = []
    while todo:
        found = list(_one_child(todo, seed))
        results += found
        done = collections.Counter(result.door for result in found)
        if not found:
            raise RuntimeError("the child has tried nothing: run child.py by hand")
        todo = [(d, first + done[d], left - done[d]) for d, first, left in todo]
        todo = [item for item in todo if item[2]]
    return results


def table(results: Sequence[Result]) -> str:
    """Return the outcomes by door, in Markdown."""
    columns = (*GOOD, *BAD)
    lines = [f"| door | inputs | {' | '.join(columns)} |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    counts = collections.Counter((result.door, result.outcome) for result in results)
    for door in sorted({result.door for result in results}):
        numbers = [counts[door, outcome] for outcome in columns]
        lines.append(f"| {door} | {sum(numbers)} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines)


def _one_child(todo: Sequence[tuple[str, int, int]], seed: int) -> Iterator[Result]:
    """Start a child; yield its results until it has done all or must be ended."""
    with tempfile.TemporaryDirectory(prefix="robustness_") as scratch:
        program = [sys.executable, "-m", "tests.robustness.child", str(seed), scratch]
        program += [f"{door}:{first}:{count}" for door, first, count in todo]
        child = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        watch = _Watch(child)
        begun = None
        assert child.stdout is not None
        try:
            for line in child.stdout:
                event = json.loads(line)
                if "outcome" not in event:
                    begun = event
                    watch.begin()
                    continue
                begun = None
                watch.end()
                if event.pop("seconds") > MAX_CPU_SECONDS:
                    event["outcome"] = "too slow"
                yield Result(**event)
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
            watch.close()
        if begun is not None:
            # It died, or it was ended.
            yield Result(**begun, outcome=watch.reason or "traceback", words="it died")


class _Watch:
    """Ends a child that takes too long or too much memory, and says which."""

    def __init__(self, child: subprocess.Popen):
        self.reason = ""
        self._child = child
        self._deadline = time.monotonic() + _STARTING_SECONDS
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def begin(self) -> None:
        self._deadline = time.monotonic() + MAX_WALL_SECONDS

    def end(self) -> None:
        self._deadline = time.monotonic() + _STARTING_SECONDS

    def close(self) -> None:
        self._is_closed.set()
        self._thread.join()

    def _look(self) -> None:
        status = pathlib.Path(f"/proc/{self._child.pid}/status")
        while not self._is_closed.wait(0.05):
            if time.monotonic() > self._deadline:
                self.reason = "too slow"
            try:
                lines = status.read_text().splitlines()
            except OSError:
                return
            resident = [line for line in lines if line.startswith("VmRSS")]
            if resident and int(resident[0].split()[1]) * 1024 > MAX_BYTES:
                self.reason = "too much memory"
            if self.reason:
                self._child.kill()
                return
