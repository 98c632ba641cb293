"""What macOS and Windows lack is not needed: modules and functions of Linux alone."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
HEAD = """
import os, signal, sys

def lose(owner, *names):
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)
"""
WINDOWS = """
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
lose(os, "fork", "mkfifo", "pwrite", "sched_getaffinity", "statvfs")
lose(signal, "SIGBUS", "SIGHUP", "SIGKILL")
"""
MACOS = 'lose(os, "sched_getaffinity")\n'
IMPORTS = """
import importlib, pkgutil, segnext_jax

folders = ("segnext_jax.config.shipped", "segnext_jax.preparation.sets")
for module in pkgutil.walk_packages(segnext_jax.__path__, "segnext_jax."):
    if not module.name.startswith(folders):
        importlib.import_module(module.name)
# Nor is PyTorch, where it is installed, before a command needs it.
assert "torch" not in sys.modules
"""
LOCK = """
import pathlib
from segnext_jax.checkpoints.lock import WriterLock

with WriterLock(pathlib.Path(sys.argv[1])) as lock:
    lock.check()
"""
PREPARE = """
from segnext_jax.cli import command
from segnext_jax.preparation.command import prepare
sys.path.insert(0, "data/shapes")
from prepare import Shapes
import prepare as shapes

shapes.NUM_EXAMPLES = {"train": 2, "val": 1}
prepare(Shapes(data_dir=sys.argv[1]))
"""


@pytest.mark.parametrize(
    "program",
    [WINDOWS + IMPORTS + LOCK, MACOS + PREPARE],
    ids=["windows-imports-lock", "macos-prepare"],
)
def test_programs_do_without_what_other_systems_lack(program, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HEAD + program, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
