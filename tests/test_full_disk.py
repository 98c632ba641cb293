"""Commands whose outputs find no room end in one sentence, and leave nothing behind."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# No file may have more than 64 KB.
PROGRAM = """
import resource, sys
from segnext_jax.__main__ import dispatch
from segnext_jax.cli import command

resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
sys.exit(command.run(dispatch, sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "--checkpoint={old}/model", "--output=out/a.npz"),
        ("convert", "--checkpoint={old}/model", "--output=out/a.pth"),
        ("convert", "--checkpoint", "{old}/model", "{old}/run", "--output=out/a"),
        ("export", "--checkpoint={old}/model", "--output=out/a", "--size=32"),
        ("prepare", "shapes", "--data_dir=out"),
    ],
    ids=lambda arguments: f"{arguments[0]}-{pathlib.Path(arguments[-1]).suffix}",
)
def test_outputs_without_room_are_one_sentence(arguments, old, tmp_path):
    ended = subprocess.run(
        [
            *(sys.executable, "-c", PROGRAM),
            *(argument.format(old=old) for argument in arguments),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1, ended.stderr
    errors = [line for line in ended.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1 and "File too large. Make room" in errors[0]
    assert "Traceback" not in ended.stderr and "out" in errors[0]
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert all(path.name == ".preparing.lock" for path in left)
