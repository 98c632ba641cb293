"""The direction of imports, and what each part must not depend on."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "segnext_jax"

# Part of the package -> parts that it may import. Lower levels first.
ALLOWED = {
    "ops": set(),
    "datasets": set(),
    "cli": set(),
    "models": {"ops"},
    "images": {"datasets"},
    "config": {"cli", "datasets"},
    "evaluation": {"cli", "images", "ops"},
    "checkpoints": set("cli config datasets models".split()),
    "pipeline": {"datasets", "evaluation", "images"},
    "preparation": {"cli", "datasets", "images"},
    "convert": set("checkpoints cli config datasets models".split()),
    "weights": set("checkpoints cli config convert datasets models".split()),
    "training": set(
        (
            "check_dataset checkpoints cli config convert datasets evaluation "
            "images models ops pipeline weights"
        ).split()
    ),
    "predict": set(
        ("cli config datasets evaluation images models ops pipeline weights").split()
    ),
    "main": set("checkpoints cli config training".split()),
    "describe": set("cli config datasets models ops training".split()),
    "benchmark": set("cli config datasets evaluation models ops training".split()),
    "check_dataset": set("cli config datasets images pipeline".split()),
    "demo": set("cli datasets images predict".split()),
    "export": set("cli datasets demo images models ops pipeline predict".split()),
    "__init__": set(
        "cli config convert datasets export models ops predict training".split()
    ),
    "__main__": {"cli"},
}
# Modules of `training` that know nothing of the parts beside them.
LEAVES_OF_TRAINING = (
    *(
        "state",
        "schedule",
        "optimizer",
        "objective",
        "step",
        "tasks/classification_step",
        "tasks/segmentation_step",
    ),
)

HEAVY = {
    "datasets": {"jax", "flax"},
    "pipeline": {"jax", "flax"},
    "images": {"jax", "flax"},
    "preparation": {"jax", "flax"},
    "check_dataset": {"jax", "flax"},
    "evaluation": {"flax"},
}


def imports(path: pathlib.Path) -> set[str]:
    """Return the dotted names that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def part_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_file_imports_only_what_its_part_may(path):
    part = part_of(path)
    assert part in ALLOWED, f"{part} is new: say in ALLOWED what it may import"
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "segnext_jax" and rest and rest[0] != "__version__":
            assert rest[0] in ALLOWED[part] | {part}, f"{part} may not import {name}"
        assert top not in ("configs", "data", "launch", "tests")
        assert top not in HEAVY.get(part, ()), f"{part} may not import {top}"
        if top == "torch":
            assert part == "convert"
        if top in ("onnx", "onnxruntime"):
            assert part == "export"
        assert top != "tensorflow"


@pytest.mark.parametrize("module", LEAVES_OF_TRAINING)
def test_training_leaf_knows_only_networks(module):
    for name in imports(PACKAGE / "training" / f"{module}.py"):
        top, *rest = name.split(".")
        if top == "segnext_jax":
            assert rest[0] in ("models", "ops", "training"), name


@pytest.mark.parametrize("folder", ["configs", "data"])
def test_configs_and_data_import_few_parts_of_the_package(folder):
    allowed = {
        "configs": {"config"},
        "data": {"datasets", "images", "preparation"},
    }[folder]
    for path in (ROOT / folder).rglob("*.py"):
        for name in imports(path):
            top, *rest = name.split(".")
            if top == "segnext_jax":
                assert rest[0] in allowed, f"{path} may not import {name}"


def test_no_file_is_longer_than_400_lines():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("segnext_jax", "benchmarks", "configs", "data", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_no_file_has_a_name_that_says_nothing():
    nothing = {"utils", "util", "common", "misc", "core", "helpers", "helper"}
    for path in FILES:
        assert not nothing & {part.removesuffix(".py") for part in path.parts[-2:]}
