"""Eight CPU devices, no silent broadcasting, a compile cache for the session."""

import importlib.util
import os
import pathlib
import tarfile
import tempfile
import types
from collections.abc import Callable

# Before jax is imported by anything.
os.environ["JAX_PLATFORMS"] = "cpu"
# Programs run for seconds and compile for minutes: half of that without optimisation.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8"
    " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false"
)
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Programs that the tests start compile what an earlier one has compiled only once.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="segnext_jax_compile_cache_")
)

import pytest  # noqa: E402

ROOT = pathlib.Path(__file__).parents[1]


# Files of minutes. Each file is one worker's (`--dist=loadfile`, launch/test.sh): begun
# last, the other workers would wait for them.
_LONGEST = ("tests/test_end_to_end.py", "tests/training/test_step.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONGEST))


@pytest.fixture(scope="session")
def reference() -> pathlib.Path:
    """The folder with what the official code computes."""
    return ROOT / "tests" / "goldens"


@pytest.fixture(scope="session")
def load_compared() -> Callable[[str], types.ModuleType]:
    """A function that imports a file of benchmarks/compare."""
    return lambda name: load(ROOT / "benchmarks" / "compare" / f"{name}.py")


def load(path: pathlib.Path) -> types.ModuleType:
    """Import a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_network() -> tuple[str, ...]:
    """Overrides for the whole network with few channels and blocks."""
    return (
        "model.embed_dims=8,16,16,24",
        "model.depths=1,1,1,1",
        "model.mlp_ratios=2,2,2,2",
        "model.head_channels=32",
        "model.rank=4",
    )


@pytest.fixture(scope="session")
def shapes_dir(tmp_path_factory) -> pathlib.Path:
    """A data folder with 24 train and 10 val examples of the shapes data set."""
    from segnext_jax.preparation.command import prepare

    shapes = load(ROOT / "data" / "shapes" / "prepare.py")
    shapes.NUM_EXAMPLES = {"train": 24, "val": 10}
    folder = tmp_path_factory.mktemp("prepared")
    prepare(shapes.Shapes(data_dir=folder))
    return folder


OLD_RUNS = pathlib.Path(__file__).parent / "old_runs"


@pytest.fixture(scope="session")
def old_maker():
    """What made the files of an earlier version, and draws their data."""
    return load(OLD_RUNS / "make.py")


@pytest.fixture
def old(tmp_path) -> pathlib.Path:
    """What version 986ebcb left behind: run/, model/ and the user's config files."""
    with tarfile.open(OLD_RUNS / "986ebcb" / "old.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture(scope="session")
def old_data(old_maker, tmp_path_factory) -> pathlib.Path:
    """The folder that its run was trained on, elsewhere."""
    folder = tmp_path_factory.mktemp("old") / "moved"
    old_maker.draw_folder(folder)
    return folder


@pytest.fixture
def file_server():
    """A server of files, `tests/file_server.py`."""
    with load(ROOT / "tests" / "file_server.py").serve() as serving:
        yield serving
