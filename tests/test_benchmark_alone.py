import argparse
import sys

import numpy as np
import pytest

from segnext_jax.benchmark import alone, memory, turns
from segnext_jax.benchmark.__main__ import parse
from segnext_jax.models.segnext import VARIANTS, Variant

SMALL = Variant((4, 8, 12, 16), (1, 1, 1, 1), (2, 2, 2, 2), 0.0, 32, 4)
SIZE = ("--size=256x512", "--batch=8", "--classes=5", "--rounds=1")


@pytest.fixture
def small_command(monkeypatch, tmp_path):
    """The command line, with a small network in place of the tiny one."""
    script = tmp_path / "benchmark.py"
    script.write_text(
        "import sys\n"
        "from segnext_jax.benchmark.__main__ import main\n"
        "from segnext_jax.models.segnext import VARIANTS, Variant\n"
        f"VARIANTS['tiny'] = {SMALL!r}\n"
        "main(sys.argv[1:])\n"
    )
    monkeypatch.setattr(alone, "COMMAND", (sys.executable, str(script)))
    monkeypatch.setitem(VARIANTS, "tiny", SMALL)
    return script


def test_memory_of_a_program_alone_is_what_the_compiler_plans(
    small_command, monkeypatch
):
    peaks = turns.Peaks(flops=1e9, bandwidth=1e8)
    monkeypatch.setattr(turns, "measure_peaks", lambda dtype: peaks)
    options, run = parse(["--what=forward", "--work=logits", *SIZE])
    (row,) = run(options).rows
    plan = row["compiler's plan MB"]
    # 8x64x128 pixels in 8 channels take 2 MB. Convolutions have memory of their own.
    assert plan > 4
    assert plan * 0.9 < row[memory.RESIDENT] < plan * 1.3 + 10


def test_a_first_result_comes_from_a_process_that_knows_nothing(
    small_command, monkeypatch
):
    calls = []
    run = alone.subprocess.run
    monkeypatch.setattr(
        alone.subprocess,
        "run",
        lambda *a, **k: (calls.append(k["env"]), run(*a, **k))[1],
    )
    options, measure = parse(["--what=compile", "--work=logits", "--size=32"])
    assert options.torch_forms == ["eager", "channels_last", "compile"]
    (row,) = measure(options).rows
    assert (row["program"], row["work"]) == ("ours", "logits")
    assert row["first s"] > 0.1
    (environment,) = calls
    assert environment["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    assert "MALLOC_MMAP_THRESHOLD_" not in environment


def test_a_form_that_fails_is_named_and_the_others_are_measured(monkeypatch):
    def measure(options, work, name, **unused):
        if name == "torch compile":
            raise alone.ProgramFailed(f"{work}, {name}: its process failed: no g++")
        return {"first s": 2.0 if name == "ours" else 4.0}

    monkeypatch.setattr(alone, "measure", measure)
    options, run = parse(
        ["--what=compile", "--work=step", f"--against={__file__}", "--rounds=2"]
    )
    report = run(options)
    assert [row["program"] for row in report.rows] == [
        *("ours", "torch eager", "torch channels_last")
    ]
    assert report.notes[0] == (
        "Without step, torch compile: its process failed: no g++"
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
        ("raise SystemExit('error: no such file')", "failed: error: no such file"),
        ("import time; time.sleep(60)", "more than the 0 s that were left"),
    ],
)
def test_a_process_that_fails_is_told_in_a_sentence(code, reason, monkeypatch):
    monkeypatch.setattr(alone, "COMMAND", (sys.executable, "-c", code))
    options = argparse.Namespace(variant="tiny", size="32x32", batch=1, arguments=[])
    limit_s = 0.3 if "sleep" in code else None
    with pytest.raises(alone.ProgramFailed, match=reason):
        alone.measure(options, "logits", "ours", is_cold=False, limit_s=limit_s)


def test_memory_of_a_run_is_what_it_touches():
    given = memory.resident_peak_mb(lambda: np.ones(2**24).sum())
    if given is None:
        pytest.skip("the kernel does not let a process reset its peak")
    assert 120 < given < 140


def test_an_allocator_that_counts_is_asked_before_the_first_run():
    """On a GPU: what the first run made to stay is state, not the run's memory."""
    in_use = [100 * 2**20]
    peak = [0]

    def run():
        peak[0] = max(peak[0], in_use[0] + 7 * 2**20)

    def first_run():
        in_use[0] += 20 * 2**20
        run()

    def reset():
        peak[0] = in_use[0]

    counter = memory.Counter(reset, lambda: in_use[0], lambda: peak[0])
    peaks = memory.measure_peak(first_run, run, lambda: 20 * 2**20, counter)
    assert peaks == {memory.ALLOCATED: 7.0}
