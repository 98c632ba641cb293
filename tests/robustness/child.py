"""Tries inputs of doors, one after the other, and reports each on its standard output.

Started by `trial`, which watches its time and memory. Arguments: seed, folder for
scratch files, then DOOR:FIRST:COUNT for each door.
"""

import contextlib
import importlib
import io
import json
import os
import pathlib
import resource
import shutil
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

import numpy as np

from segnext_jax.cli import command
from tests.robustness.case import Case

# What runs programs; a file that makes Python do so has executed code.
_PROGRAMS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn")
_executed: list[str] = []


def outcome_of(case: Case) -> tuple[str, str]:
    """Return what became of a case, and the words that a user gets.

    "accepted" and "refused" are right, unless the case is wrong and accepted. The rule
    is that of the command lines: `cli.command.run`.
    """
    output = io.StringIO()

    def main(arguments: Sequence[str]) -> None:
        case.try_fn()

    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            code = command.run(main, [])
    except SystemExit as stop:
        code = stop.code
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error}"[:300]
    text = output.getvalue()
    if "Traceback (most recent" in text:
        return "traceback", text[-300:]
    if code:
        return "refused", text[-300:]
    return ("wrongly accepted" if case.is_wrong else "accepted"), ""


def main(arguments: list[str]) -> None:
    """Try all inputs."""
    seed, scratch, *doors = arguments
    modules = {
        name: importlib.import_module(f"tests.robustness.doors.{name}")
        for name in (text.partition(":")[0] for text in doors)
    }
    report = os.fdopen(os.dup(1), "w")
    # What libraries write in C.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.addaudithook(
        lambda event, _: _executed.append(event) if event in _PROGRAMS else None
    )
    warnings.simplefilter("ignore")
    for text in doors:
        name, first, count = text.split(":")
        for number in range(int(first), int(first) + int(count)):
            folder = pathlib.Path(scratch) / f"{name}_{number}"
            folder.mkdir()
            # Python's hash of a text differs from process to process.
            rng = np.random.default_rng([int(seed), number, *name.encode()])
            begun = {"door": name, "number": number, "what": "being generated"}
            _write(report, begun)
            case = modules[name].generate(rng, folder)
            begun["what"] = case.what
            _write(report, begun)
            _executed.clear()
            start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            outcome, words = outcome_of(case)
            seconds = resource.getrusage(resource.RUSAGE_SELF).ru_utime - start
            if _executed:
                outcome, words = "executed", ", ".join(_executed)
            ended = begun | {"outcome": outcome, "words": words, "seconds": seconds}
            _write(report, ended)
            shutil.rmtree(folder)


def _write(report: TextIO, event: dict) -> None:
    report.write(json.dumps(event) + "\n")
    report.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
