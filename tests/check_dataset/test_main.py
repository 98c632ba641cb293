"""The command line: refusals, prepared sets, no JAX."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split=test"], "no split 'test': it has train, val. Name one"),
        (["--config.data.zero=1"], "config.data.zero is not a field"),
        (["--config.data.mask_values=rgb"], "must be one of ids, colours: got 'rgb'"),
    ],
)
def test_refusals_are_one_sentence(check, arguments, message):
    code, log, report = check(*arguments)
    assert (code, report) == (1, None)
    assert message in log and "Traceback" not in log


def test_data_sets_that_are_not_there(check, tmp_path):
    code, log, _ = check(target=tmp_path / "nowhere")
    assert code == 1 and "no such folder" in log
    code, log, _ = check(f"--config.data.data_dir={tmp_path}", target="camvid")
    assert code == 1 and "Prepare it: segnext-jax prepare camvid" in log
    code, log, _ = check(f"--config.data.data_dir={tmp_path}", target="camvit")
    assert code == 1 and "Did you mean camvid?" in log


def test_a_prepared_set_is_checked_by_name_and_by_folder(check, folder, tmp_path):
    path = ROOT / "data" / "folder" / "prepare.py"
    module_spec = importlib.util.spec_from_file_location("folder_prepare", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    data_dir = tmp_path / "prepared"
    arguments = [f"--raw_dir={folder}", "--name=mine", f"--data_dir={data_dir}"]
    assert module.main(arguments) == 0
    _, _, direct = check()
    for target, arguments in (
        ("mine", [f"--config.data.data_dir={data_dir}"]),
        (data_dir / "mine" / "1.0.0", []),
    ):
        code, _, report = check(*arguments, target=target)
        assert code == 0
        for field in ("mean", "std", "splits", "duplicates", "findings"):
            assert report[field] == direct[field]


def test_no_jax_is_needed(folder, tmp_path):
    code = (
        "import sys, runpy\n"
        "sys.modules['jax'] = sys.modules['flax'] = None\n"
        f"sys.argv = ['check', {str(folder)!r}, '--output={tmp_path}/out']\n"
        "runpy.run_module('segnext_jax.check_dataset', run_name='__main__')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert "base_scale=(2048, 512) enlarges" in result.stdout
