import os
import subprocess
import sys

import pytest

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
