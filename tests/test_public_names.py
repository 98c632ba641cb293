"""What users import, and what comes with it."""

import configparser
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

import segnext_jax

# Without the checks of shapes that pytest adds, as users run it.
REFUSED = """
import jax
import jax.numpy as jnp
from segnext_jax.models import MSCAN, SegNeXt
from segnext_jax.ops import depthwise_conv

small = MSCAN(embed_dims=(8,) * 4, depths=(1,) * 4, mlp_ratios=(1,) * 4)
images, kernel = jnp.ones((1, 9, 8, 4)), jnp.ones((3, 3, 4))
calls = [
    lambda: depthwise_conv(images, jnp.ones((5, 5, 1, 4))),
    lambda: depthwise_conv(images, jnp.ones((3, 3, 5))),
    lambda: depthwise_conv(images, kernel, jnp.ones((3,))),
    lambda: SegNeXt(variant="huge"),
    lambda: jax.eval_shape(small.init, jax.random.key(0), jnp.ones((32, 32, 3))),
]
for call in calls:
    try:
        call()
    except ValueError as error:
        print(error)
    else:
        raise SystemExit("accepted")
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_does_not_fit_is_refused_in_a_sentence():
    told = run(REFUSED).splitlines()
    assert told[0].startswith(
        "depthwise kernels are [height, width, channels]: got (5, 5, 1, 4). "
    )
    assert "got (1, 9, 8, 4) and kernel (3, 3, 5)" in told[1]
    assert "a depthwise bias is [channels], here (4,): got (3,)" in told[2]
    assert "one of tiny, small, base, large, or a Variant" in told[3]
    assert "got (32, 32, 3). Add the batch to a single image: image[None]." in told[4]


def test_import_is_light_and_packages_come_when_asked_for():
    run(
        "import sys, segnext_jax\n"
        "assert not {'jax', 'flax', 'numpy'} & set(sys.modules)\n"
        "assert callable(segnext_jax.models.SegNeXt) and 'jax' in sys.modules\n"
    )


def test_configs_and_preparations_are_in_the_package():
    package = pathlib.Path(segnext_jax.__file__).parent
    setup = configparser.ConfigParser()
    setup.read(package.parent / "setup.cfg")
    shipped = set()
    for name, patterns in setup["options.package_data"].items():
        folder = package.joinpath(*name.split(".")[1:])
        for pattern in re.split(r"[,\s]+", patterns):
            shipped |= {path.resolve() for path in folder.glob(pattern)}
    for needed in ("configs/*.py", "data/*/prepare.py"):
        assert shipped >= set(package.parent.glob(needed)) != set()


@pytest.mark.parametrize("module", ["pipeline", "evaluation.batch", "images"])
def test_workers_import_no_jax(module):
    run(
        "import sys\nsys.modules['jax'] = sys.modules['flax'] = None\n"
        f"import segnext_jax.{module}\n"
    )


@pytest.mark.parametrize("module", ["", ".models", ".ops", ".config", ".convert"])
def test_public_names_exist_and_are_typed(module):
    package = importlib.import_module(f"segnext_jax{module}")
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert (pathlib.Path(segnext_jax.__file__).parent / "py.typed").is_file()
