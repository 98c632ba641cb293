import os
import pathlib
import shlex
import subprocess
import sys

import jax
import pytest
from PIL import Image

from segnext_jax.cli import command

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import resource, sys
import numpy as np
from segnext_jax.cli.command import keep_freed_memory

is_done = keep_freed_memory()
def touch():
    np.ones(2**24, np.float32).sum()
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    touch()
print(is_done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
# Of 64 MiB, three times.
NUM_PAGES = 3 * 2**26 // os.sysconf("SC_PAGESIZE")


def run(**settings):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    for name in ("GLIBC_TUNABLES", "LD_PRELOAD"):
        environment.pop(name, None)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    is_done, faults = ended.stdout.split()
    return is_done == "True", int(faults)


def test_freed_memory_is_used_again_without_the_kernel():
    is_done, faults = run()
    if not is_done:
        pytest.skip("the C library is not glibc")
    assert faults < NUM_PAGES / 10


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_the_users_own_settings_stay(name):
    value = "glibc.malloc.arena_max=4" if name == "GLIBC_TUNABLES" else "4"
    is_done, faults = run(**{name: value})
    assert not is_done
    # Large arrays come from the kernel each time; transparent huge pages, if they are
    # on for all, hold many pages each.
    assert faults > 0


def test_a_user_without_a_home_gets_no_traceback(tmp_path):
    # As in a container that runs under an id without an account.
    nobody = ["unshare", "--user", "--map-user=12345"]
    if subprocess.run([*nobody, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody take another id (unshare --user)")
    environment = {k: v for k, v in os.environ.items() if k != "HOME"}
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        environment.pop(name, None)
    commands = {
        "segnext_jax.predict": (f"--checkpoint={tmp_path}", "photo.jpg", "--output=o"),
        "segnext_jax.main": (
            f"--config={ROOT / 'configs' / 'shapes_tiny.py'}",
            f"--workdir={tmp_path / 'run'}",
            "--config.batch_size=8",
            "--config.evaluation.batch_size=8",
        ),
    }
    for module, arguments in commands.items():
        ended = subprocess.run(
            [*nobody, sys.executable, "-m", module, *arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        (line,) = ended.stderr.splitlines()
        assert line.startswith("error: ")
    assert "this user has no home folder. Set TFDS_DATA_DIR" in line


ABROAD = """
import sys
from segnext_jax.cli import command

def main(arguments):
    sys.stdout.write("classes: road, \\u9053\\u8def\\n")
    raise ValueError("no \\u9053")

sys.exit(command.run(main, []))
"""


def test_letters_that_a_terminal_has_not_are_escaped():
    ended = subprocess.run(
        [sys.executable, "-c", ABROAD],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "classes: road, \\u9053\\u8def\n"
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("ValueError: no \\u9053")


def ended(*arguments, **options):
    words = [sys.executable, "-m", "segnext_jax", *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(words, cwd=ROOT, text=True, **options)


def test_a_reader_that_has_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        result = ended("configs", stdout=pipe)
    assert (result.returncode, result.stderr) == (141, "")


def test_closed_streams_are_no_error():
    command = [sys.executable, "-m", "segnext_jax", "configs"]
    closed = f"{shlex.join(command)} >&- 2>&-"
    assert subprocess.run(["sh", "-c", closed], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("platform", ["cuda", "tpu", "nonsense"])
def test_devices_that_are_not_there_are_one_sentence(platform, tmp_path, old):
    image = old / "a.png"
    Image.new("RGB", (40, 30)).save(image)
    result = ended(
        *("predict", f"--checkpoint={old / 'model'}", str(image)),
        f"--output={tmp_path / 'out'}",
        env=os.environ | {"JAX_PLATFORMS": platform},
    )
    assert result.returncode == 1
    assert f"JAX_PLATFORMS is '{platform}'" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_device_without_room_is_one_sentence(capsys):
    def main(arguments):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 "
            "bytes.\nAllocation type: HLO temp"
        )

    assert command.run(main, []) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "allocate 8589934592 bytes. Set config.batch_size" in line


LOST = """
import gc, sys, time
from segnext_jax.cli import command

def interrupt(phase, info):
    gc.callbacks.remove(interrupt)
    raise KeyboardInterrupt

def main(arguments):
    gc.callbacks.append(interrupt)
    gc.collect()
    time.sleep(60)

sys.exit(command.run(main, []))
"""


def test_an_interruption_within_the_garbage_collection_is_not_lost():
    result = subprocess.run(
        [sys.executable, "-c", LOST], cwd=ROOT, capture_output=True, timeout=50
    )
    assert (result.returncode, result.stderr) == (130, b"interrupted\n")
