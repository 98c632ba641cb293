"""Every program of benchmarks/ can be started."""

import pathlib
import runpy

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
# Modules that others import, and compare, which is a package.
PROGRAMS = [
    f"benchmarks.{path.stem}"
    for path in sorted(FOLDER.glob("*.py"))
    if "argparse" in path.read_text()
]


# OpenVINO starts a process when it is imported, of which JAX's threads are told.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", [*PROGRAMS, "benchmarks.compare"])
def test_program_tells_its_options(name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(name, run_name="__main__")
    assert not ended.value.code
    assert "usage:" in capsys.readouterr().out
