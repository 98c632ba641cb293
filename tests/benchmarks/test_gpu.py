"""The shell logic of benchmarks/gpu.sh: its Python only says what it is asked."""

import os
import pathlib
import shlex
import subprocess

from benchmarks.compare.__main__ import parse

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


def run(tmp_path, python, **environment):
    """Return the table."""
    path = tmp_path / "python"
    path.write_text(f"#!/usr/bin/env bash\n{python}\n")
    path.chmod(0o755)
    given = os.environ | {"PYTHON": str(path), **environment}
    folder = tmp_path / "out"
    subprocess.run(["bash", SCRIPT, folder], env=given, check=True, cwd="/")
    return (folder / "gpu.md").read_text(), folder


def test_a_failing_part_is_named_and_the_rest_go_on(tmp_path):
    python = 'case "$*" in *"512 --work step"*) echo why >&2; exit 3;; esac'
    python += '; echo "asked $*"'
    table, folder = run(tmp_path, python)
    for variant in ("tiny", "base"):
        name = f"train_{variant}"
        assert f"\n{name}: failed or took more than" in table
        assert (folder / f"{name}.log").read_text() == "why\n"
    asked = [line for line in table.splitlines() if "benchmarks.compare" in line]
    assert len(asked) == 7
    for line in asked:
        assert "--dtype=bfloat16" in line
        # The benchmark knows all of these options.
        parse(shlex.split(line)[3:])
    assert [case.work for case in parse(shlex.split(asked[0])[3:]).cases] == [
        *("logits", "labels", "logits", "labels")
    ]
    assert "--first --work step" in asked[4] and "--torch_forms compile" in asked[4]
    assert "benchmarks.operations" in table
    assert "--depthwise auto shifted grouped" in table


def test_parts_can_be_chosen_and_run_without_torch(tmp_path):
    python = 'case "$*" in *"import torch"*) exit 1;; esac; echo "asked $*"'
    table, _ = run(tmp_path, python, PARTS="ops train_base")
    (line,) = [line for line in table.splitlines() if "benchmarks.compare" in line]
    options = parse(shlex.split(line)[3:])
    assert options.torch_forms == [] and options.cases[0].work == "step"
    assert "benchmarks.operations" in table


def test_near_the_end_no_part_begins(tmp_path):
    table, _ = run(tmp_path, "echo nothing", QUICK="10")
    assert "\nforward: no time left.\n" in table and "\nevaluate: no time" in table
