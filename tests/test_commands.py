"""The list of commands, and what each takes."""

import contextlib
import importlib
import subprocess
import sys

import pytest

from segnext_jax import __main__ as program
from segnext_jax.cli import command
from segnext_jax.config.fields import FIELDS
from segnext_jax.config.overrides import MEANT

LIGHT = """
import contextlib, io, sys
from segnext_jax.__main__ import COMMANDS, dispatch

def told(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        with contextlib.suppress(SystemExit):
            dispatch(arguments)
    return text.getvalue()

listed = told()
assert told("--help") == listed
for name in COMMANDS:
    assert f"\\n  {name} " in listed
    assert told(name, "--help").startswith(f"usage: segnext-jax {name} "), name
of_shapes = told("prepare", "shapes", "--help")
assert of_shapes.startswith("usage: segnext-jax prepare shapes ")
assert "jax" not in sys.modules
"""


def test_list_and_help_of_each_command_need_no_jax():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_a_wrong_command_is_told_the_right_one(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["segnext-jax", "evalute"])
    assert program.main() == 1
    assert "got 'evalute'. Did you mean evaluate?" in capsys.readouterr().err


def test_options_of_earlier_versions_are_taken_and_not_shown(capsys):
    parser = command.Parser("x", "", renamed=command.OVERWRITE | {"--to": "--output"})
    parser.add_argument("--output")
    command.add_existing(parser)
    for arguments in (["--to=a", "--overwrite"], ["--to", "a", "--overwrite"]):
        options = parser.parse_args(arguments)
        assert (options.output, options.existing) == ("a", "overwrite")
    assert "--to" not in parser.format_help()
    assert "--overwrite" not in parser.format_help()


@pytest.mark.parametrize(
    "arguments",
    [
        "train --config=shapes_tiny --config.data.data_dir=gs://bucket/data",
        "train s3://bucket/photos --workdir=run",
        "check gs://bucket/photos",
        "prepare shapes --data_dir=s3://bucket/data",
    ],
)
def test_data_in_a_bucket_are_refused_before_a_folder_of_its_name_is_made(
    arguments, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["segnext-jax", *arguments.split()])
    with contextlib.suppress(SystemExit):  # Of prepare, a program of its own.
        assert program.main() == 1
    told = capsys.readouterr().err
    assert "must lie on a local disk, as training reads images in random" in told
    assert "://bucket/" in told
    assert not any(tmp_path.iterdir())


def test_a_store_of_another_kind_is_refused(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = "convert --checkpoint=x.pth --output=abfs://bucket/exported"
    monkeypatch.setattr(sys, "argv", ["segnext-jax", *words.split()])
    assert program.main() == 1
    assert (
        "must begin with gs:// or s3://: got abfs://bucket" in capsys.readouterr().err
    )
    assert not any(tmp_path.iterdir())


def test_export_takes_its_folder_and_result_by_old_and_new_names():
    parse = importlib.import_module("segnext_jax.export.__main__")._parse
    new = ["--checkpoint=a", "--output=b", "--result=logits", "--batch_size=2"]
    old = ["--checkpoint=a", "--to=b", "--output=logits", "--batch=2"]
    assert parse(new) == parse(old)


def test_configs_are_listed_by_name_with_the_papers_numbers(capsys):
    program.dispatch(["configs"])
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("ade20k_base "))
    assert line.split(maxsplit=3) == [
        *("ade20k_base", "ade20k", "base"),
        "mIoU 48.5, multi-scale with flip 49.9 (paper)",
    ]


def test_a_config_says_where_each_value_was_set(capsys):
    set_here = "--config.data.crop_size=480x512"
    program.dispatch(["configs", "voc2012_finetune_tiny", "--print", set_here])
    text = capsys.readouterr().out
    for line in (
        "num_steps = 80000  (voc2012_base.py; default 160000)",
        "model.variant = 'tiny'  (voc2012_tiny.py; default 'base')",
        "data.train_split = 'trainval'  (voc2012_finetune_tiny.py; default '')",
        "data.crop_size = (480, 512)  (the command line; default (512, 512))",
        "optimizer.learning_rate = 6e-05",
    ):
        assert f"{line}\n" in text
    names = [line.split(" = ")[0] for line in text.splitlines() if line[0] != " "]
    assert sorted(names) == sorted(FIELDS)


def test_a_wrong_config_name_lists_what_there_is(capsys):
    assert command.run(program.dispatch, ["configs", "ade20k_tinny"]) == 1
    assert "does not exist. Did you mean ade20k_tiny" in capsys.readouterr().err
    assert command.run(program.dispatch, ["describe", "--config=mine"]) == 1
    assert "Shipped are ade20k_base, ade20k_large," in capsys.readouterr().err


@pytest.mark.parametrize(
    "field, advice",
    [
        ("model.num_classes", "The classes come from the data set"),
        ("lr", "Did you mean config.optimizer.learning_rate?"),
        ("epochs", "Durations are in steps: set config.num_steps."),
        ("nothing_like_it", "segnext-jax configs NAME --print lists all fields."),
    ],
)
def test_an_unknown_field_gets_advice(field, advice, capsys):
    arguments = ["configs", "shapes_tiny", f"--config.{field}=1"]
    assert command.run(program.dispatch, arguments) == 1
    assert f"config.{field} is not a field. {advice}" in capsys.readouterr().err


def test_what_is_suggested_exists():
    assert set(MEANT.values()) <= FIELDS.keys()
    assert not {name for name in MEANT if name in FIELDS}
