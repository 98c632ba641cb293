"""`--mode=evaluate`: a run's stored settings decide, others go on top."""

import json

import pytest

from segnext_jax import main
from segnext_jax.cli import command
from segnext_jax.config.overrides import flatten
from segnext_jax.config.rules import changes_numbers, faults_of_command


@pytest.fixture
def evaluate(old, old_data):
    """Evaluate the old run; return the folders that results are in."""

    def run(*arguments, expected=0):
        folder = f"--config.data.folder={old_data}"
        given = [f"--workdir={old / 'run'}", "--mode=evaluate", folder, *arguments]
        assert command.run(main.main, given) == expected
        return sorted(path.parent for path in old.rglob("evaluation.json"))

    return run


def test_a_config_file_does_not_change_the_numbers_and_differences_are_told(
    evaluate, old, caplog
):
    """The file lacks the overrides of the run, and could not run without them."""
    with caplog.at_level("INFO"):
        (folder,) = evaluate(f"--config={old / 'mine_fast.py'}")
    result = json.loads((folder / "evaluation.json").read_text())
    assert result["mIoU"] == pytest.approx(0.39097, abs=1e-3)
    lines = [record.getMessage() for record in caplog.records]
    told = [line for line in lines if "the run's is taken" in line]
    assert len(told) == 2
    assert told[0].startswith("config.data.mask_values is 'colours' in the run, 'ids'")
    assert told[1].startswith("config.evaluation.scale is (96, 48) in the run, (2048, ")
    assert any(line.startswith("config.data.folder is ") for line in lines)


def test_other_settings_are_written_elsewhere_and_named(evaluate, old, caplog):
    own = old / "run" / "evaluation.json"
    own.write_text("{}")
    with caplog.at_level("INFO"):
        evaluate("--config.evaluation.flip=true", "--which=best")
    assert "config.evaluation.flip is False in the run, True here." in caplog.text
    assert "Evaluating step 4 of" in caplog.text
    assert own.read_text() == "{}"
    (folder,) = (old / "run" / "evaluations").iterdir()
    assert folder.name.startswith("step_4_")
    names = {path.name for path in folder.iterdir()}
    assert names == {"evaluation.json", "evaluation.csv", "confusion.png"}
    settings = json.loads((folder / "evaluation.json").read_text())["settings"]
    assert settings["which"] == "best"
    assert settings["differing"].keys() == {"data.folder", "evaluation.flip"}
    flip = settings["differing"]["evaluation.flip"]
    assert flip == {"run": False, "here": True}
    assert settings["fields"]["evaluation.flip"] is True


def test_the_runs_own_settings_write_its_own_file(old, old_data):
    text = (old / "run" / "config.json").read_text()
    stored = json.loads(text)
    stored["data"]["folder"] = str(old_data)
    (old / "run" / "config.json").write_text(json.dumps(stored))
    arguments = [f"--workdir={old / 'run'}", "--mode=evaluate"]
    # Bases and batches change no number.
    main.main([*arguments, "--config.evaluation.num_bases=2", "--which=6"])
    assert not (old / "run" / "evaluations").exists()
    results = json.loads((old / "run" / "evaluation.json").read_text())
    assert results["step"] == 6 and results["settings"]["differing"] == {}
    assert results["over_bases"]["seeds"] == [0, 1]
    main.main([*arguments, "--which=4"])
    assert (old / "run" / "evaluations" / "step_4" / "evaluation.json").is_file()
    assert json.loads((old / "run" / "evaluation.json").read_text()) == results


def test_results_elsewhere_leave_the_run_as_it_is(evaluate, old, tmp_path):
    def state():
        return {path: path.stat().st_mtime_ns for path in (old / "run").rglob("*")}

    # A save that is under way: orbax's cleaning up would end it.
    partial = old / "run" / "checkpoints" / "9.orbax-checkpoint-tmp"
    partial.mkdir()
    before = state()
    evaluate(f"--output={tmp_path / 'results'}", "--which=latest")
    assert state() == before
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert names == {"evaluation.json", "evaluation.csv", "confusion.png"}


def test_a_path_to_a_checkpoint_is_that_checkpoint_of_the_run(old, old_data):
    path = old / "run" / "checkpoints" / "4"
    main.main(
        [f"--workdir={path}", "--mode=evaluate", f"--config.data.folder={old_data}"]
    )
    (folder,) = (old / "run" / "evaluations").iterdir()
    result = json.loads((folder / "evaluation.json").read_text())
    assert result["step"] == 4
    assert result["mIoU"] == pytest.approx(0.50945, abs=1e-3)
    assert not list(path.glob("eval*"))


def test_fields_without_effect_are_refused_unless_they_are_the_runs_own(
    evaluate, old, capsys
):
    evaluate("--config.optimizer.learning_rate=0.2", expected=1)
    error = capsys.readouterr().err
    assert "config.optimizer.learning_rate has no effect on evaluation" in error
    assert "Traceback" not in error
    # As the run has it: the command line of the training, and --mode=evaluate.
    assert len(evaluate("--config.optimizer.learning_rate=0.1")) == 1


@pytest.mark.parametrize("text", ["", '{"seed": '])
def test_a_cut_configuration_is_that_of_the_newest_checkpoint(
    evaluate, old, caplog, text
):
    config = old / "run" / "config.json"
    config.write_text(text)
    with caplog.at_level("WARNING"):
        assert len(evaluate()) == 1
    assert str(config) in caplog.text
    assert config.read_text() == text  # Reading changes nothing.


def test_a_configuration_that_cannot_be_is_one_sentence(evaluate, old, capsys):
    (old / "run" / "config.json").write_text('{"data": {}, "model": 3}')
    evaluate(expected=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {old / 'run' / 'config.json'} cannot be used: ")


def test_a_finished_run_says_so_and_compiles_no_step(old, old_data, caplog):
    arguments = [f"--workdir={old / 'run'}", f"--config.data.folder={old_data}"]
    main.main(arguments)
    kept = sorted(path.name for path in (old / "run" / "checkpoints").iterdir())
    assert kept == ["4", "6", "8"]
    caplog.clear()
    with caplog.at_level("INFO"):
        main.main(arguments)
    assert f"{old / 'run'} is finished: step 8 of 8." in caplog.text
    assert "Compiling the train step" not in caplog.text


def test_the_log_names_the_checkpoint_that_is_gone_on_from(old, old_data, caplog):
    newest = old / "run" / "checkpoints" / "6" / "optimizer" / "manifest.ocdbt"
    newest.write_bytes(newest.read_bytes()[:50])
    with caplog.at_level("INFO"):
        main.main([f"--workdir={old / 'run'}", f"--config.data.folder={old_data}"])
    assert "Going on from the checkpoint of step 4." in caplog.text
    assert "Checkpoint 6 is damaged" in caplog.text


def test_what_cannot_be_meant_is_one_sentence(old, capsys):
    def error(*arguments):
        assert command.run(main.main, list(arguments)) == 1
        return capsys.readouterr().err

    assert "--config or --workdir must be given" in error()
    message = error(f"--workdir={old / 'nothing'}")
    assert "--config must name a config for a new run" in message
    message = error(f"--workdir={old / 'run'}", "--which=best")
    assert "--which is for evaluate" in message


def test_a_predictor_uses_no_field_that_an_evaluation_does_not(old):
    from segnext_jax.config import FIELDS, base_config

    for name in FIELDS:
        if faults_of_command([name], "evaluation"):
            assert faults_of_command([name], "prediction")
    changing = {field for field, _ in flatten(base_config()) if changes_numbers(field)}
    assert {"evaluation.scale", "data.folder", "model.dtype"} <= changing
    assert not {"batch_size", "evaluation.num_overlays", "data.num_workers"} & changing
