"""Every program of benchmarks/ can be started."""

import pathlib
import runpy

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
# Others are imported by these.
PROGRAMS = [
    str(path.relative_to(FOLDER))
    for path in sorted(FOLDER.rglob("*.py"))
    if "argparse" in path.read_text()
]


# OpenVINO starts a process when it is imported, of which JAX's threads are told.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_tells_its_options(name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert not ended.value.code
    assert "usage:" in capsys.readouterr().out
