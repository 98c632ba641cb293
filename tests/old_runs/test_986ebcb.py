"""What version 986ebcb left behind loads, resumes and evaluates to its numbers.

Tolerances: sums in another order, on eight devices and with other compiler flags than
those of the program that noted the numbers, turn single pixels of 17,920.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

import segnext_jax
from segnext_jax import main, weights
from segnext_jax.training.evaluate import configure

OLD = pathlib.Path(__file__).parent / "986ebcb"
NUMBERS = json.loads((OLD / "numbers.json").read_text())
MIOU = {int(step): value for step, value in NUMBERS["mIoU by step"].items()}


def results(path):
    return json.loads((path / "evaluation.json").read_text())


@pytest.mark.parametrize("name", ["run", "model", "run/checkpoints/6"])
def test_logits_are_those_that_were_noted(old, old_maker, name):
    model = segnext_jax.load(old / name)
    assert model.classes == tuple(old_maker.CLASSES)
    logits = np.asarray(model.logits(old_maker.photograph()))[0, ::2, ::2]
    noted = np.array(NUMBERS["logits of step 6"])
    assert logits.shape == noted.shape == (2, 4, 3)
    np.testing.assert_allclose(logits, noted, rtol=0, atol=1e-4)
    assert np.abs(noted).max() > 0.1


@pytest.mark.parametrize(("which", "step"), [("latest", 6), ("best", 4)])
def test_run_is_evaluated_by_its_own_settings(old, old_data, which, step):
    """Without a config file; its overrides were of the scale and the masks."""
    arguments = (f"--workdir={old / 'run'}", "--mode=evaluate", f"--which={which}")
    main.main([*arguments, f"--config.data.folder={old_data}"])
    (folder,) = (old / "run" / "evaluations").iterdir()
    found = results(folder)
    assert found["step"] == step
    assert found["mIoU"] == pytest.approx(MIOU[step], abs=1e-3)
    assert found["settings"]["fields"]["evaluation.scale"] == [96, 48]
    assert found["settings"]["fields"]["data.mask_values"] == "colours"


def test_run_goes_on_to_the_end_that_was_noted(old, old_data, old_maker):
    """With the user's config file, as it was started."""
    arguments = [f"--config={old / 'mine_fast.py'}", f"--workdir={old / 'run'}"]
    arguments += [f"--config.{text}" for text in old_maker.OVERRIDES]
    main.main([*arguments, f"--config.data.folder={old_data}"])
    end, noted = results(old / "run"), NUMBERS["evaluation of step 8"]
    assert end["step"] == 8
    assert end["settings"]["differing"].keys() == {"data.folder"}
    for name, value in noted.items():
        assert end[name] == pytest.approx(value, abs=5e-3)
    lines = (old / "run" / "metrics.jsonl").read_text().splitlines()
    (loss,) = [x["loss"] for x in map(json.loads, lines) if "loss" in x]
    assert loss == pytest.approx(NUMBERS["losses"]["8"], rel=1e-3)
    scores = json.loads((old / "run" / "scores.json").read_text())
    assert scores["4"] == MIOU[4] and scores.keys() == {"2", "4", "6", "8"}


def test_run_and_model_folder_hold_the_same_weights(old):
    shutil.rmtree(old / "run" / "checkpoints" / "4")
    run, model = weights.load(old / "run"), weights.load(old / "model")
    assert (run.step, model.step) == (6, None)
    assert run.score == MIOU[6]
    np.testing.assert_array_equal(
        run.variables["params"]["decode_head"]["conv_seg"]["kernel"],
        model.variables["params"]["decode_head"]["conv_seg"]["kernel"],
    )


def test_config_file_that_lacks_fields_is_compared_by_the_others(old, caplog):
    """As one that was written for another version."""
    path = old / "mine.py"
    text = path.read_text().replace(
        "config.data.name", "config.evaluation.flip = True #"
    )
    text = text.replace(
        "    return",
        "    with config.unlocked():\n        del config.model\n    return",
    )
    path.write_text(text)
    with caplog.at_level("INFO"):
        configure(old / "run", (), str(path))
    told = [text for text in caplog.messages if "the run's is taken" in text]
    assert any(text.startswith("config.evaluation.flip is False") for text in told)
