"""Published networks by name, from a server of this machine."""

import dataclasses
import hashlib
import importlib.util
import pathlib

import jax
import numpy as np
import pytest

import segnext_jax
from segnext_jax import config as config_lib
from segnext_jax import weights
from segnext_jax.cli import command
from segnext_jax.config.overrides import flatten
from segnext_jax.convert import from_file
from segnext_jax.datasets import SPECS
from segnext_jax.models.segnext import VARIANTS, SegNeXt
from segnext_jax.predict import __main__ as predict
from segnext_jax.training.run import initial_variables
from segnext_jax.weights import __main__ as command_line
from segnext_jax.weights import named
from segnext_jax.weights.published import PUBLISHED

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
TINY = "segnext-tiny-cityscapes"


def kept(tmp_path):
    return sorted(p.name for p in (tmp_path / "cache/segnext_jax/weights").glob("s*"))


def test_a_name_is_fetched_verified_converted_and_kept(published, tmp_path, caplog):
    with caplog.at_level("INFO"):
        model = segnext_jax.load(TINY)
    assert model.spec == SPECS["cityscapes"] and model.config.model.variant == "tiny"
    assert model.config.evaluation.mode == "slide"
    wanted = from_file(tmp_path / f"{TINY}.pth").variables["params"]["backbone"]
    given = model.variables["params"]["backbone"]
    jax.tree.map(np.testing.assert_array_equal, dict(given), wanted)
    assert f"fetching {published.url}/{TINY}.pth" in caplog.text
    assert kept(tmp_path) == [TINY], "of the download nothing is left"
    published.files.clear()
    segnext_jax.load(TINY)
    assert len(published.requests) == 1


def test_a_path_of_that_name_comes_first(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / TINY).mkdir()
    with pytest.raises(ValueError, match="must be a run's workdir, one of its"):
        segnext_jax.load(TINY)
    assert not published.requests


def test_a_training_starts_from_an_encoder(published, tmp_path, caplog):
    one = PUBLISHED["mscan-tiny"]
    # The file of the rule is not the published one: its checksum is refused.
    published.files[one.file_name] = published.files["mscan.pth"]
    fields = ["model.variant=tiny", "init_from=mscan-tiny"]
    config = config_lib.with_overrides(config_lib.base_config(), fields, "test")
    model = SegNeXt.from_config(config.model, num_classes=150)
    with pytest.raises(ValueError, match="sha256 .* must begin with 119e8c9f: got "):
        initial_variables(config, model)
    digits = hashlib.sha256(published.files["mscan.pth"]).hexdigest()[:8]
    one = dataclasses.replace(one, checksum=f"sha256:{digits}")
    named.fetch_file(one, named.cache())
    with caplog.at_level("INFO"):
        variables = initial_variables(config, model)
    assert "Starting from " in caplog.text
    wanted = from_file(tmp_path / "mscan.pth").variables["params"]["backbone"]
    given = variables["params"]["backbone"]
    jax.tree.map(np.testing.assert_array_equal, given, wanted)


@pytest.mark.parametrize("fault", ["gone", "page", "network", "damaged"])
def test_what_cannot_be_had_says_what_to_do_by_hand(
    fault, published, tmp_path, monkeypatch, capsys
):
    if fault == "gone":
        published.files.clear()
    elif fault == "page":
        monkeypatch.setenv("SEGNEXT_JAX_MIRROR", f"{published.url}/page")
    elif fault == "network":
        monkeypatch.setenv("SEGNEXT_JAX_MIRROR", "http://127.0.0.1:9")
    else:
        content = published.files[f"{TINY}.pth"]
        published.files[f"{TINY}.pth"] = content[:-1000]
    arguments = ["a.jpg", f"--checkpoint={TINY}", f"--output={tmp_path / 'out'}"]
    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert command.run(predict.main, arguments) == 1
    errors = capsys.readouterr().err.splitlines()
    (error,) = [line for line in errors if line.startswith("error: ")]
    reason = {
        "gone": "the server answers 404, Not Found.",
        "page": "a web page came, not the file.",
        "network": "could not be fetched: Connection refused.",
        "damaged": ".pth must be a whole .pth file",
    }[fault]
    assert reason in error
    path = tmp_path / "cache/segnext_jax/weights" / f"{TINY}.pth"
    assert f" By hand: fetch {PUBLISHED[TINY].url} (named on " in error
    assert error.endswith(f" and put it at {path}.") and not path.exists()
    # That is done, and it is taken, and left there.
    path.write_bytes((tmp_path / f"{TINY}.pth").read_bytes())
    segnext_jax.load(TINY)
    assert kept(tmp_path) == [TINY, f"{TINY}.pth"]


def test_a_file_put_there_by_hand_is_verified(published, tmp_path):
    path = named.cache() / PUBLISHED["mscan-tiny"].file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(published.files["mscan.pth"])
    with pytest.raises(ValueError, match="is not the published file: its sha256"):
        weights.load("mscan-tiny")
    assert path.exists() and not published.requests


def test_other_names_suggest_the_nearest():
    with pytest.raises(ValueError, match="does not. Did you mean segnext-tiny-ade20k?"):
        segnext_jax.load("segnext_tiny_ade20k")
    with pytest.raises(ValueError, match="runs/x does not. segnext-jax weights lists"):
        segnext_jax.load("runs/x")
    with pytest.raises(ValueError, match="is no published network. Did you mean mscan"):
        named.fetch("mscan-tny")


def test_without_a_cache_folder_one_is_asked_for(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ValueError, match="set XDG_CACHE_HOME to a folder"):
        segnext_jax.load(TINY)


def test_the_table_agrees_with_configs_and_networks():
    assert len(PUBLISHED) == 16
    assert len({one.url for one in PUBLISHED.values()}) == 16
    for one in PUBLISHED.values():
        kind, variant = one.name.split("-")[:2]
        assert variant in VARIANTS and bool(one.dataset) == (kind == "segnext")
        if not one.dataset:
            continue
        spec = importlib.util.spec_from_file_location(
            "config", CONFIGS / f"{one.dataset}_{variant}.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        wanted = dict(flatten(module.get_config()))
        for field, value in flatten(named.configuration(one)):
            if field.startswith(("evaluation.", "model.", "data.")):
                assert (field, value) == (field, wanted[field])


def test_the_list_names_results_size_licence_and_source(published, capsys, tmp_path):
    assert command.run(command_line.main, []) == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = "segnext-base-cityscapes 82.6 83.8 27.6 110 Apache-2.0 * official".split()
    assert wanted in [line.split() for line in lines]
    assert lines[-1] == f"kept in: {tmp_path / 'cache/segnext_jax/weights'}"
    assert command.run(command_line.main, [TINY]) == 0
    assert capsys.readouterr().out == f"{named.cache() / TINY}\n"
