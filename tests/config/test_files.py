"""Stored configurations: cut, mutated, and of other versions."""

import json
import math
import os
import pathlib
import random
import sys

import pytest

from segnext_jax import config as config_lib
from segnext_jax.config.__main__ import main as print_config
from segnext_jax.config.kinds import tuples
from segnext_jax.config.overrides import flatten

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
SHAPES = config_lib.to_json(config_lib.load(str(CONFIGS / "shapes_tiny.py")))
DEFAULTS = dict(flatten(config_lib.base_config()))
WRONG = [
    None,
    True,
    -5,
    -0.5,
    1e400,
    math.nan,
    "x",
    "",
    [],
    [[]],
    {},
    {"a": 1},
    [1, "x"],
]
NUM_MUTATIONS = 300


def fields_of(values: dict, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from fields_of(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def put(values: dict, field: str, value) -> None:
    *parents, leaf = field.split(".")
    for part in parents:
        values = values[part]
    values[leaf] = value


def kind(value) -> str:
    """Return what a JSON value is, so that an int may stand for a float."""
    if isinstance(value, bool) or value is None or isinstance(value, str | dict):
        return type(value).__name__
    if isinstance(value, list):
        return "list of " + "/".join(sorted({kind(item) for item in value}))
    return "number" if math.isfinite(value) else "no number"


def is_plausible(field: str, before, after) -> bool:
    """Tell values that a field may have by its kind alone."""
    if kind(after) != kind(before):
        is_emptied = isinstance(before, list) and isinstance(after, list)
        is_unset = DEFAULTS[field] is None and kind(after) in ("number", "NoneType")
        if not (is_emptied or is_unset):
            return False
    return config_lib.FIELDS[field].kind.accepts(tuples(after))


def refused(text: str) -> str:
    """Return the one sentence; anything but a refusal or a configuration fails."""
    try:
        config = config_lib.from_json(text)
    except ValueError as error:
        assert str(error).startswith("the stored configuration ")
        return str(error)
    # What is accepted is what is written there, and as good as a config file.
    assert config_lib.with_overrides(config, [], "it") is config
    written = dict(fields_of(json.loads(config_lib.to_json(config))))
    assert written | dict(fields_of(json.loads(text))) == written
    return ""


@pytest.mark.parametrize("seed", range(3))
def test_mutated_values_are_refused_or_valid(seed):
    generator = random.Random(seed)
    original = dict(fields_of(json.loads(SHAPES)))
    accepted = 0
    for _ in range(NUM_MUTATIONS):
        field = generator.choice(list(original))
        value = generator.choice(WRONG)
        values = json.loads(SHAPES)
        put(values, field, value)
        message = refused(json.dumps(values))
        if message:
            assert field in message
        else:
            assert is_plausible(field, original[field], value), (field, value)
            accepted += 1
    assert accepted < NUM_MUTATIONS / 5


@pytest.mark.parametrize("value", [-5, None, True, "x", [], {}, math.nan])
def test_no_number_is_replaced_by_another_kind(value):
    for field, before in fields_of(json.loads(SHAPES)):
        if kind(before) == "number":
            values = json.loads(SHAPES)
            put(values, field, value)
            if value is not None or DEFAULTS[field] is not None:
                assert field in refused(json.dumps(values)), field


def test_cut_and_garbled_texts_are_one_sentence():
    generator = random.Random(0)
    for _ in range(NUM_MUTATIONS):
        end = generator.randrange(len(SHAPES))
        assert refused(SHAPES[:end])
        place, byte = generator.randrange(len(SHAPES)), chr(generator.randrange(128))
        refused(SHAPES[:place] + byte + SHAPES[place + 1 :])
    for text in ("", "[]", "{}", "3", "null", '"x"', "[" * 100_000, '{"data": {}}'):
        assert refused(text)


def test_field_that_was_removed_is_passed_over_and_a_new_one_is_the_default():
    values = json.loads(SHAPES)
    values["evaluation"]["checkpoint"] = "best"
    del values["init_which"]
    config = config_lib.from_json(json.dumps(values))
    assert config == config_lib.from_json(SHAPES)
    assert config.init_which == "latest" and "checkpoint" not in config.evaluation
    values["evaluation"]["chekpoint"] = "best"
    with pytest.raises(ValueError, match="evaluation.chekpoint is not a field of this"):
        config_lib.from_json(json.dumps(values))


def test_faults_of_the_task_are_found():
    values = json.loads(SHAPES)
    values["classification"]["mixup_alpha"] = 0.5
    assert "for config.task='classification' alone" in refused(json.dumps(values))


def test_field_that_was_removed_names_what_takes_its_place(tmp_path):
    with pytest.raises(
        ValueError, match="not a field any more. Name .* --which=latest"
    ):
        config_lib.load(None, ["evaluation.checkpoint=best"])
    path = tmp_path / "mine.py"
    path.write_text(
        "from segnext_jax.config import base_config\n"
        "def get_config():\n"
        "    config = base_config()\n"
        "    config.evaluation.checkpoint = 'best'\n"
        "    return config\n"
    )
    with pytest.raises(
        ValueError, match="evaluation.checkpoint is not a field any mor"
    ):
        config_lib.load(str(path))


def test_which_checkpoint_to_start_from_needs_a_run(tmp_path):
    for which in ("latest", "best", "4000"):
        config = config_lib.load(None, ["init_from=runs/a", f"init_which={which}"])
        assert config.init_which == which
    with pytest.raises(ValueError, match="init_which must be latest, best or the num"):
        config_lib.load(None, ["init_from=runs/a", "init_which=newest"])
    with pytest.raises(ValueError, match="init_which is for config.init_from"):
        config_lib.load(None, ["init_which=best"])


def write(path, *lines, encoding="utf-8"):
    head = "from segnext_jax.config import base_config\ndef get_config():\n"
    body = ["config = base_config()", *lines, "return config"]
    text = head + "".join(f"    {line}\n" for line in body)
    path.write_text(text, encoding=encoding)
    return str(path)


def test_section_that_holds_the_configuration_is_a_fault(tmp_path):
    """Printed or walked through, it has no end."""
    path = write(
        tmp_path / "mine.py",
        "with config.unlocked(), config.ignore_type():",
        "    config.optimizer.weight_decay = config",
    )
    with pytest.raises(ValueError, match=r"weight_decay must be .*: got a section\."):
        config_lib.load(path)


def test_file_is_read_as_it_is_now_and_nothing_is_written_beside_it(
    tmp_path, monkeypatch
):
    """Also if bytecode of another content of this size and second is there."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "mine.py"
    for batch_size in (8, 4):
        path.write_text(
            "from segnext_jax.config import base_config\n"
            "def get_config():\n"
            "    config = base_config()\n"
            f"    config.batch_size = {batch_size}\n"
            "    return config\n"
        )
        os.utime(path, (0, 0))
        assert config_lib.load(str(path)).batch_size == batch_size
    assert os.listdir(tmp_path) == ["mine.py"]


def test_file_that_raises_what_is_no_exception_is_refused(tmp_path):
    with pytest.raises(ValueError, match="failed with GeneratorExit"):
        config_lib.load(write(tmp_path / "mine.py", "raise GeneratorExit"))
    with pytest.raises(KeyboardInterrupt):
        config_lib.load(write(tmp_path / "mine.py", "raise KeyboardInterrupt"))


def test_file_with_a_mark_is_printed(tmp_path, capsys):
    path = write(tmp_path / "mine.py", "config.eval_every = 7", encoding="utf-8-sig")
    print_config([path])
    assert "eval_every = 7  (mine.py; default " in capsys.readouterr().out
