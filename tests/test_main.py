"""The command line: what a user gets wrong ends in one sentence."""

import os
import pathlib

import pytest

from segnext_jax import main
from segnext_jax.cli import command

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = str(ROOT / "configs" / "shapes_tiny.py")


def fails(capsys, *arguments) -> str:
    """Run the program, expect an error, return its one line."""
    code = command.run(main.main, list(arguments))
    error = capsys.readouterr().err.strip().splitlines()
    assert code == 1
    assert error[-1].startswith("error: ") or error[0].startswith("error: ")
    assert not any("Traceback" in line for line in error)
    return " ".join(error)


def test_compiled_programs_are_kept_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    command.set_up_compilation_cache()
    name = "JAX_COMPILATION_CACHE_DIR"
    assert os.environ[name] == "/caches/segnext_jax/compiled"
    monkeypatch.setenv(name, "")
    command.set_up_compilation_cache()
    assert os.environ[name] == ""


@pytest.mark.parametrize(
    "flags, number, is_off",
    [
        ("--xla_force_host_platform_device_count=8", "", True),
        ("--xla_force_host_platform_device_count=1", "", False),
        ("", "2", True),
        ("", "-1", False),
        ("", "", False),
    ],
)
def test_several_cpu_devices_read_no_kept_program(monkeypatch, flags, number, is_off):
    """They would wait for each other; see `command.set_up_compilation_cache`."""
    name = "JAX_ENABLE_COMPILATION_CACHE"
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", number)
    monkeypatch.setenv(name, "true")
    command.set_up_compilation_cache()
    assert os.environ[name] == "true"
    monkeypatch.delenv(name)
    command.set_up_compilation_cache()
    assert (os.environ.get(name) == "false") == is_off


def test_windows_that_leave_gaps(capsys):
    message = fails(
        capsys, f"--config={CONFIG}", "--config.evaluation.stride=1024,1025"
    )
    assert "stride must not exceed the window" in message


def test_several_bases_that_are_drawn_anew(capsys):
    message = fails(
        capsys,
        f"--config={CONFIG}",
        "--config.evaluation.num_bases=5",
        "--config.model.nmf_eval_bases=random",
    )
    assert "num_bases above 1 needs config.model.nmf_eval_bases 'fixed'" in message


def test_no_such_config(capsys, tmp_path):
    message = fails(capsys, "--config=configs/shapes_tinny.py")
    assert "configs/shapes_tinny.py does not exist" in message
    assert "Did you mean configs/shapes_tiny.py" in message


def test_misspelt_field(capsys, tmp_path):
    message = fails(
        capsys, f"--config={CONFIG}", f"--workdir={tmp_path}", "--config.batchsize=4"
    )
    assert "config.batchsize is not a field. Did you mean config.batch_size?" in message


def test_data_not_prepared_names_the_command(capsys, tmp_path):
    message = fails(
        capsys,
        f"--config={CONFIG}",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.data_dir={tmp_path}",
        "--config.evaluation.batch_size=8",
    )
    assert f"segnext-jax prepare shapes --data_dir={tmp_path}" in message
    assert not (tmp_path / "run").exists()


def test_evaluating_nothing(capsys, tmp_path):
    message = fails(
        capsys, f"--config={CONFIG}", "--mode=evaluate", f"--workdir={tmp_path}"
    )
    assert "must be the folder of a run or of a model" in message


def test_folder_of_something_else_is_not_written_into(capsys, tmp_path, shapes_dir):
    (tmp_path / "thesis.tex").write_text("x")
    message = fails(
        capsys,
        f"--config={CONFIG}",
        f"--workdir={tmp_path}",
        f"--config.data.data_dir={shapes_dir}",
        "--config.evaluation.batch_size=8",
    )
    assert "holds other files" in message
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_devices_that_do_not_divide_the_batch(capsys, tmp_path, shapes_dir):
    message = fails(
        capsys,
        f"--config={CONFIG}",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.data_dir={shapes_dir}",
        "--config.batch_size=12",
    )
    assert "12 images for 8 devices. Set it to 8 or 16" in message


@pytest.mark.parametrize("argument", ["--workdirr=x", "config.seed=3"])
def test_unknown_argument(capsys, argument):
    with pytest.raises(SystemExit) as caught:
        command.run(main.main, [f"--config={CONFIG}", argument])
    assert caught.value.code == 2
    assert argument in capsys.readouterr().err
