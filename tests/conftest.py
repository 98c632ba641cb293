"""Eight CPU devices, no silent broadcasting, a compile cache for the session."""

import gc
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import shutil
import sys
import tarfile
import tempfile
import types
from collections.abc import Callable, Iterator
from typing import Any

# Before jax is imported by anything.
os.environ["JAX_PLATFORMS"] = "cpu"
# Programs run for seconds and compile for minutes: half of that without optimisation.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8"
    " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    # Dividing a program for many threads costs more than two cores gain.
    " --xla_cpu_parallel_codegen_split_count=1"
)
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # XLA ends the process for a flag that it does not know, as of jaxlib 0.11.2 this.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# PyTorch's threads wait for each other by counting: another worker's core is lost.
os.environ["OMP_NUM_THREADS"] = "1"
# Each of a hundred processes would compile the package's files anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Tracing makes objects by the million: a fifth of its time went into looking at them.
gc.set_threshold(50_000, 20, 50)
# In spite of eight devices: see `_keep_no_exchange_in_a_loop`.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "true")
# Caches of XLA's own, whose folder would be a part of the keys of compiled programs.
os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"
# Smaller programs, thousands, take as long to be kept and read as to be compiled.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"


def _kept_programs() -> pathlib.Path:
    """Return where compiled programs wait for sessions on a processor of this kind."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else platform.processor()
    kind = sorted(set(re.findall(r"^(?:model name|flags|Features)\s.*", text, re.M)))
    digest = hashlib.sha256("".join(kind).encode()).hexdigest()[:12]
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(caches) / "segnext_jax" / f"tests_{digest}"


# Programs that the tests start compile what an earlier one has compiled only once. The
# session has a copy: what a killed process wrote stays with the session.
_PROGRAMS = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _PROGRAMS = pathlib.Path(tempfile.mkdtemp(prefix="segnext_jax_compile_cache_"))
    if _kept_programs().is_dir():
        shutil.copytree(_kept_programs(), _PROGRAMS, dirs_exist_ok=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_PROGRAMS)

import pytest  # noqa: E402

ROOT = pathlib.Path(__file__).parents[1]
# Programs of earlier versions stay until there are so many.
_MAX_KEPT_BYTES = 2**31


# Files of minutes. Each file is one worker's (`--dist=loadfile`, launch/test.sh): begun
# last, the other workers would wait for them.
_LONGEST = ("tests/test_end_to_end.py", "tests/training/test_step.py")
# What --quick leaves out: files whose tests call networks, and those whose tests start
# many processes. A test of any other file that calls a network fails.
_NOT_QUICK = (
    *("tests/benchmark/", "tests/benchmarks/", "tests/checkpoints/test_checkpoints.py"),
    *("tests/cli/test_lifeline.py", "tests/cli/test_processes.py", "tests/demo/"),
    *("tests/convert/test_averaging.py", "tests/convert/test_main.py"),
    *("tests/convert/test_names.py", "tests/predict/test_shards.py"),
    *("tests/test_configs.py", "tests/test_doctests.py", "tests/test_main.py"),
    *("tests/describe/", "tests/docs/", "tests/evaluation/", "tests/export/"),
    *("tests/models/", "tests/old_runs/", "tests/ops/", "tests/predict/test_main.py"),
    *("tests/predict/test_predictor.py", "tests/pipeline/test_workers.py"),
    *("tests/pipeline/classification/", "tests/robustness/"),
    *("tests/test_end_to_end.py", "tests/test_pretraining.py", "tests/training/"),
    *("tests/ops/test_sharding.py", "tests/weights/"),
    # These start or wait for many processes.
    *("tests/cli/test_command.py", "tests/cli/test_download.py"),
    *("tests/pipeline/test_loader.py", "tests/test_other_systems.py"),
    *("tests/test_full_disk.py", "tests/test_buckets.py", "tests/cli/test_storage.py"),
    "tests/checkpoints/test_bucket_run.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --quick."""
    text = "leave out tests that call networks or start many processes"
    parser.addoption("--quick", action="store_true", help=text)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Begin with the longest files; with --quick take the quick ones alone."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONGEST))
    if config.getoption("--quick"):
        left_out = [item for item in items if item.nodeid.startswith(_NOT_QUICK)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.nodeid.startswith(_NOT_QUICK)]


def pytest_collection_finish() -> None:
    """Keep all that was imported out of the collector's sight, and programs right."""
    if "jax" in sys.modules:
        _keep_no_exchange_in_a_loop()
    gc.collect()
    gc.freeze()


def _keep_no_exchange_in_a_loop() -> None:
    """Compile programs anew in which XLA:CPU's devices could wait for each other.

    In a program that was read from a file, exchanges within a loop and those beside it
    begin in any order.
    """
    from jax._src import compilation_cache

    from tests.compiled_text import exchanges_in_loops

    keep = compilation_cache.put_executable_and_time

    def keep_safe(key: str, name: str, executable: Any, *rest: Any) -> None:
        if len(executable.local_devices()) > 1:
            if exchanges_in_loops(executable.hlo_modules()[0].to_string()):
                return
        keep(key, name, executable, *rest)

    compilation_cache.put_executable_and_time = keep_safe


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Refuse networks in quick tests."""
    if item.nodeid.startswith(_NOT_QUICK):
        return (yield)
    from flax import linen

    with linen.intercept_methods(_refuse):
        return (yield)


def _refuse(call: Callable, arguments: tuple, options: dict, context: Any) -> Any:
    name = f"{type(context.module).__name__}.{context.method_name}"
    assert name not in ("MSCAN.__call__", "LightHamHead.__call__"), (
        "a quick test calls no network: name its file in tests/conftest.py, _NOT_QUICK."
    )
    return call(*arguments, **options)


def pytest_sessionfinish(exitstatus: int) -> None:
    """Keep what a session without a failure has compiled; the next compiles it not."""
    if _PROGRAMS is None:  # A worker of pytest-xdist.
        return
    kept = _kept_programs()
    if exitstatus == 0:
        kept.mkdir(parents=True, exist_ok=True)
        if sum(path.stat().st_size for path in kept.iterdir()) > _MAX_KEPT_BYTES:
            shutil.rmtree(kept)
            kept.mkdir()
        for path in _PROGRAMS.iterdir():
            if not (kept / path.name).exists():
                # Renamed when whole: another session may read it.
                partial = shutil.copy(path, kept / f"{path.name}.{os.getpid()}")
                os.replace(partial, kept / path.name)
    shutil.rmtree(_PROGRAMS, ignore_errors=True)


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
        "model.depths=1,0,0,1",
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


@pytest.fixture(scope="session")
def unpack_old() -> Callable[[pathlib.Path], pathlib.Path]:
    """A function that unpacks what version 986ebcb left behind into a folder."""

    def unpack(folder: pathlib.Path) -> pathlib.Path:
        with tarfile.open(OLD_RUNS / "986ebcb" / "old.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        return folder

    return unpack


@pytest.fixture
def old(unpack_old, tmp_path) -> pathlib.Path:
    """What version 986ebcb left behind: run/, model/ and the user's config files."""
    return unpack_old(tmp_path)


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


@pytest.fixture(scope="session")
def networks():
    """The networks before a server of each kind of bucket, `tests/buckets.py`."""
    with load(ROOT / "tests" / "buckets.py").serve() as serving:
        yield serving


@pytest.fixture(params=["s3", "gs"])
def bucket(request, networks, tmp_path) -> Iterator[str]:
    """An address in a bucket of each kind, where nothing is."""
    yield f"{request.param}://bucket/{tmp_path.name}"
    networks[request.param].mend()
