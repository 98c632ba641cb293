import subprocess
import sys

import numpy as np
import pytest

from benchmarks.compare import __main__ as compare
from benchmarks.compare import own_process
from benchmarks.compare.programs import Case

# Tells the compiler's plan, too.
SCRIPT = """
import json, sys
from benchmarks.compare import own_process
from benchmarks.compare.programs import Case
from segnext_jax.models.segnext import VARIANTS, Variant

VARIANTS["tiny"] = Variant((4, 8, 12, 16), (1, 1, 1, 1), (2, 2, 2, 2), 0.0, 32, 4)
(fields, name), programs, build = json.loads(sys.argv[1]), [], own_process.build
own_process.build = lambda *case: programs.append(build(*case)) or programs[0]
found = own_process.answer(Case(*fields), name)
print(json.dumps(found | {"plan MB": programs[0].plan_mb}))
"""


def test_a_process_measures_memory_and_a_first_result(monkeypatch, tmp_path):
    script = tmp_path / "small.py"
    script.write_text(SCRIPT)
    environments = []
    run = subprocess.run

    def follow(*arguments, **options):
        environments.append(options["env"])
        return run(*arguments, **options)

    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    monkeypatch.setattr(own_process.subprocess, "run", follow)
    monkeypatch.setattr(own_process, "COMMAND", (sys.executable, str(script)))
    case = Case("logits", "tiny", (256, 512), 8, classes=5)
    found = own_process.measure(case, "ours", is_cold=False)
    plan = found["plan MB"]
    # 8x64x128 pixels in 8 channels take 2 MB. Convolutions have memory of their own.
    assert plan > 4 and found["first s"] > 0.1
    if "peak MB" in found:  # The kernel may not let a process reset its peak.
        assert plan * 0.9 < found["peak MB"] < plan * 1.3 + 10
    quick = (sys.executable, "-c", "print('{\"first s\": 1.5}')")
    monkeypatch.setattr(own_process, "COMMAND", quick)
    assert own_process.measure(case, "ours", is_cold=True) == {"first s": 1.5}
    memory, cold = environments
    assert cold["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    assert "MALLOC_MMAP_THRESHOLD_" in memory and "MALLOC_MMAP_THRESHOLD_" not in cold


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
        ("raise SystemExit('error: no such file')", "failed: error: no such file"),
    ],
)
def test_a_process_that_fails_is_told_in_a_sentence(code, reason, monkeypatch):
    monkeypatch.setattr(own_process, "COMMAND", (sys.executable, "-c", code))
    case = Case("logits", "tiny", (32, 32), 1)
    with pytest.raises(RuntimeError, match=reason):
        own_process.measure(case, "ours", is_cold=False)


def test_a_form_that_fails_is_named_and_the_others_are_measured(monkeypatch):
    def measure(case, name, *, is_cold):
        if name == "torch compile":
            raise RuntimeError("its process failed: no g++")
        return {"first s": 2.0 if name == "ours" else 4.0}

    monkeypatch.setattr(own_process, "measure", measure)
    notes = []
    options = compare.parse(["--first", "--work=step", "--rounds=2", "--torch_forms"])
    names = ["ours", "torch eager", "torch compile"]
    rows = list(compare.first_results(names, options, notes, options.cases[0]))
    assert [(row["program"], row["first s"]) for row in rows] == [
        *(("ours", 2.0), ("torch eager", 4.0))
    ]
    assert notes == ["Without step, torch compile: its process failed: no g++"]


def test_memory_of_a_run_is_what_it_touches():
    given = own_process.resident_peak_mb(lambda: np.ones(2**24).sum())
    if given is None:
        pytest.skip("the kernel does not let a process reset its peak")
    assert 120 < given < 140
