import numpy as np
import pytest

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import run_folder
from segnext_jax.checkpoints.checkpoints import Checkpoints
from segnext_jax.checkpoints.reading import stored_config
from segnext_jax.datasets.resolve import resolve_spec


@pytest.fixture
def config(tmp_path):
    config = config_lib.base_config()
    config.data.name = "folder"
    config.data.folder = str(tmp_path / "images_here")
    (tmp_path / "images_here").mkdir()
    (tmp_path / "images_here" / "classes.txt").write_text("a 1 2 3\nb 4 5 6\n")
    return config


def test_a_run_knows_its_classes_without_the_folder(config, tmp_path):
    workdir = tmp_path / "run"
    given = run_folder.with_classes(config, workdir)
    assert config.data.classes == ()
    run_folder.claim(given, workdir)
    stored = config_lib.from_json((workdir / "config.json").read_text())
    stored.data.folder = "/on/another/machine"
    spec = resolve_spec(stored.data)
    assert spec.classes == ("a", "b") and spec.colours == ((1, 2, 3), (4, 5, 6))

    # Evaluated there, with the config file that it was trained with.
    config.data.folder = "/on/another/machine"
    elsewhere = run_folder.with_classes(config, workdir)
    assert resolve_spec(elsewhere.data) == spec
    run_folder.check_network(elsewhere, workdir)


def test_a_run_goes_on_when_its_folder_has_moved(config, tmp_path):
    workdir = tmp_path / "run"
    run_folder.claim(run_folder.with_classes(config, workdir), workdir)
    (tmp_path / "images_here").rename(tmp_path / "moved")
    config.data.folder = str(tmp_path / "moved")
    run_folder.claim(run_folder.with_classes(config, workdir), workdir)
    config.data.zero_is_ignore = True
    with pytest.raises(ValueError, match="config.data.zero_is_ignore is False there"):
        run_folder.claim(run_folder.with_classes(config, workdir), workdir)


DAMAGES = [b"", b'{"data": ', b"\x00" * 40, b"[1]", b"\xff\xfe"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_configuration_without_a_checkpoint_is_written_anew(
    config, tmp_path, damage, caplog
):
    workdir = tmp_path / "run"
    given = run_folder.with_classes(config, workdir)
    run_folder.claim(given, workdir)
    whole = (workdir / "config.json").read_bytes()
    (workdir / "config.json").write_bytes(damage)
    run_folder.claim(run_folder.with_classes(config, workdir), workdir)
    assert "is damaged; there is no checkpoint: written anew" in caplog.text
    assert (workdir / "config.json").read_bytes() == whole


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_configuration_is_taken_from_the_newest_checkpoint(
    config, tmp_path, damage, caplog
):
    workdir = tmp_path / "run"
    given = run_folder.with_classes(config, workdir)
    run_folder.claim(given, workdir)
    checkpoints = Checkpoints(workdir)
    about = run_folder.about(given)
    checkpoints.save(
        3,
        model={"a": np.ones(2)},
        optimizer={"b": np.ones(1)},
        iterator={},
        about=about,
    )
    checkpoints.close()
    whole = (workdir / "config.json").read_bytes()
    (workdir / "config.json").write_bytes(damage)
    assert stored_config(workdir) == given
    assert "the configuration of checkpoint 3 is taken" in caplog.text
    # Reading changes nothing; going on does, if it is the same run.
    assert (workdir / "config.json").read_bytes() == damage
    config.seed = 5
    with pytest.raises(ValueError, match="config.seed is 0 there"):
        run_folder.claim(run_folder.with_classes(config, workdir), workdir)
    config.seed = 0
    run_folder.claim(run_folder.with_classes(config, workdir), workdir)
    assert (workdir / "config.json").read_bytes() == whole


def test_other_classes_are_another_run(config, tmp_path):
    workdir = tmp_path / "run"
    run_folder.claim(run_folder.with_classes(config, workdir), workdir)
    config.data.classes = ("a", "c")
    with pytest.raises(ValueError, match=r"config.data.classes is \('a', 'b'\) there"):
        run_folder.claim(run_folder.with_classes(config, workdir), workdir)
    config.data.classes = ("a", "c", "d")
    with pytest.raises(ValueError, match="number of classes is 2 there, 3 here"):
        run_folder.check_network(run_folder.with_classes(config, workdir), workdir)


def test_what_training_alone_uses_makes_no_other_network(config, tmp_path):
    workdir = tmp_path / "run"
    config.model.drop_path_rate = 0.2
    run_folder.claim(run_folder.with_classes(config, workdir), workdir)
    config.model.drop_path_rate = 0.3
    run_folder.check_network(run_folder.with_classes(config, workdir), workdir)
    config.model.variant = "tiny"
    with pytest.raises(ValueError, match="config.model.embed_dims is .* there, .* her"):
        run_folder.check_network(run_folder.with_classes(config, workdir), workdir)


def test_sets_of_the_table_are_left_alone(tmp_path):
    config = config_lib.base_config()
    assert run_folder.with_classes(config, tmp_path) == config


def test_a_workdir_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(ValueError, match=f"must be a folder: .*{name} is a file"):
            run_folder.claim(config_lib.base_config(), tmp_path / name)
