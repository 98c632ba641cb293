"""Commands whose outputs find no room end in one sentence, and leave nothing behind."""

import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
SHAPES = ROOT / "data" / "shapes" / "prepare.py"
# No file may have more than 64 KB.
PROGRAM = """
import json, resource, runpy, sys
from segnext_jax.__main__ import dispatch
from segnext_jax.cli import command

shapes = runpy.run_path(sys.argv[1])
shapes["NUM_EXAMPLES"].update(train=24, val=8)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
for name, *rest in json.loads(sys.argv[2]):
    if name == "prepare":
        code = shapes["main"](shapes["Shapes"], rest)
    else:
        code = command.run(dispatch, [name, *rest])
    sys.stderr.write(f"\\nCODE {code}\\n")
"""
COMMANDS = (
    ("convert", "--checkpoint={old}/model", "--output=out/a.npz"),
    ("convert", "--checkpoint={old}/model", "--output=out/a.pth"),
    ("convert", "--checkpoint", "{old}/model", "{old}/run", "--output=out/a"),
    ("export", "--checkpoint={old}/model", "--output=out/a", "--size=32"),
    ("prepare", "--data_dir=out"),
)


def test_outputs_without_room_are_one_sentence(old, tmp_path):
    commands = [[word.format(old=old) for word in words] for words in COMMANDS]
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, SHAPES, json.dumps(commands)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in ended.stderr
    *texts, rest = re.split("CODE 1\n", ended.stderr)
    assert not rest and len(texts) == len(COMMANDS), ended.stderr
    for words, text in zip(COMMANDS, texts, strict=True):
        (line,) = [line for line in text.splitlines() if "error: " in line]
        assert "File too large. Make room" in line and "out" in line, words
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert all(path.name == ".preparing.lock" for path in left)
