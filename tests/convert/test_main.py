import dataclasses
import functools
import pathlib

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import segnext_jax
from segnext_jax import convert
from segnext_jax.checkpoints import reading
from segnext_jax.cli import command
from segnext_jax.convert import files, folder
from segnext_jax.convert.__main__ import main
from segnext_jax.convert.detect import unwrap
from segnext_jax.datasets import SPECS
from segnext_jax.datasets.resolve import resolve_spec
from segnext_jax.models.segnext import VARIANTS

run = functools.partial(command.run, main)


@pytest.fixture(scope="module", autouse=True)
def shallow():
    """A block a stage for SegNeXt-T: a third of the arrays to write and read."""
    with pytest.MonkeyPatch.context() as patch:
        tiny = dataclasses.replace(VARIANTS["tiny"], depths=(1, 1, 1, 1))
        patch.setitem(VARIANTS, "tiny", tiny)
        yield


@pytest.fixture(scope="module")
def checkpoint(make_state_dict, tmp_path_factory):
    """An official checkpoint of SegNeXt-T with the classes of Cityscapes."""
    path = tmp_path_factory.mktemp("official") / "tiny.npz"
    files.write(path, make_state_dict("tiny", 19), {})
    return path


@pytest.fixture(scope="module")
def model(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    assert run(["--from", str(checkpoint), "--to", str(path)]) == 0
    return path


def refuse(capsys, *arguments):
    """Run a command that must fail; return its one line on stderr."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_folder_holds_variables_and_configuration(model, make_state_dict):
    stored = reading.read(model)
    variables, config = stored.variables, stored.config
    assert config.model.variant == "tiny"
    assert config.model.rank == 16
    assert config.data.name == "cityscapes"
    wanted = convert.from_state_dict(make_state_dict("tiny", 19)).variables
    wanted, given = flatten_dict(wanted), flatten_dict(variables)
    assert set(given) == set(wanted)
    for path, value in wanted.items():
        np.testing.assert_array_equal(given[path], value, strict=True)


def test_command_says_what_it_found(checkpoint, tmp_path, capsys):
    assert run(["--from", str(checkpoint), "--to", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "found: SegNeXt, tiny, 19 classes, official names",
        "loaded 195 arrays (backbone 182, decode_head 13)",
        "rank 16, as in the configs of that code: the weights do not tell (--rank sets "
        "it)",
        "classes: cityscapes, by their number (--dataset names another)",
        f"wrote {tmp_path / 'new'}: 2,001,011 parameters",
    ]


@pytest.mark.parametrize("dialect", ["official", "mmseg1", "jseg"])
def test_file_written_back_equals_the_first_bit_for_bit(
    dialect, model, make_state_dict, tmp_path
):
    path = tmp_path / "back.npz"
    arguments = ["--from", str(model), "--to", str(path), "--dialect", dialect]
    assert run(arguments) == 0
    given = unwrap(files.read(path))
    wanted = make_state_dict("tiny", 19, dialect=dialect)
    assert list(given) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(given[name], value, strict=True)


def test_jseg_pickle_goes_out_and_in(model, tmp_path):
    path = tmp_path / "ckpt_160000.pkl"
    assert run(["--from", str(model), "--to", str(path)]) == 0
    content = files.read(path)
    assert set(content) == {"meta", "model"}
    assert content["meta"]["CLASSES"] == list(SPECS["cityscapes"].classes)
    converted = convert.from_file(path)
    assert converted.source.dialect == "jseg"
    assert not converted.summary.missing


def test_torch_file_carries_classes_where_mmsegmentation_looks(model, tmp_path):
    pytest.importorskip("torch", reason="needs torch")
    for dialect, keys in (
        ("official", ("CLASSES",)),
        ("mmseg1", ("dataset_meta", "classes")),
    ):
        path = tmp_path / f"{dialect}.pth"
        arguments = ["--from", str(model), "--to", str(path), "--dialect", dialect]
        assert run(arguments) == 0
        found = files.read(path)["meta"]
        for key in keys:
            found = found[key]
        assert tuple(found) == SPECS["cityscapes"].classes


def test_class_names_in_the_file_tell_the_data_set(make_state_dict, tmp_path):
    content = {
        "state_dict": make_state_dict("tiny", SPECS["camvid"].num_classes),
        "meta": {"CLASSES": [name.upper() for name in SPECS["camvid"].classes]},
    }
    _, config, remarks = folder.convert(content)
    assert config.data.name == "camvid"
    assert "classes: camvid, as named in the file" in remarks


OWN = {
    "classes": ("road", "crack", "Größe"),
    "palette": [[9, 8, 7], [1, 2, 3], [0] * 3],
}


@pytest.mark.parametrize(
    "meta",
    [{"dataset_meta": OWN}, {"CLASSES": OWN["classes"], "PALETTE": OWN["palette"]}],
)
def test_own_classes_come_from_the_file(meta, make_state_dict, tmp_path):
    path = tmp_path / "own.pkl"
    files.write(path, make_state_dict("tiny", 3), meta)
    assert run(["--from", str(path), "--to", str(tmp_path / "own")]) == 0
    config = reading.stored_config(tmp_path / "own")
    spec = resolve_spec(config.data)
    assert spec.classes == OWN["classes"]
    assert spec.colours == ((9, 8, 7), (1, 2, 3), (0, 0, 0))
    # Whoever loads it needs no more.
    network = segnext_jax.load(tmp_path / "own")
    assert network.classes == OWN["classes"]


def test_own_classes_come_from_a_file_of_names_or_are_numbered(
    make_state_dict, tmp_path, capsys, caplog
):
    path = tmp_path / "own.npz"
    files.write(path, make_state_dict("tiny", 3), {})
    table = tmp_path / "classes.txt"
    table.write_text("road 1 2 3\ncrack 4 5 6\nsky 7 8 9\n")
    target = tmp_path / "own"
    arguments = ["--from", str(path), "--to", str(target), "--overwrite"]
    assert run([*arguments, f"--classes={table}"]) == 0
    spec = resolve_spec(reading.stored_config(target).data)
    assert spec.classes == ("road", "crack", "sky") and spec.colours[2] == (7, 8, 9)

    assert run(arguments) == 0
    assert "classes: class 0 to class 2, without names" in capsys.readouterr().out
    assert "Pass --classes=FILE" in caplog.text
    spec = resolve_spec(reading.stored_config(target).data)
    assert spec.classes == ("class 0", "class 1", "class 2")
    assert len(set(spec.colours)) == 3

    table.write_text("road\ncrack\n")
    line = refuse(capsys, *arguments, f"--classes={table}")
    assert "as many classes as the network has, 3: the file of classes has 2" in line


def test_config_of_a_folder_gives_its_classes(make_state_dict, tmp_path, capsys):
    path, target = tmp_path / "own.npz", tmp_path / "own"
    files.write(path, make_state_dict("tiny", 3), {})
    (tmp_path / "classes.txt").write_text("road\ncrack\nsky\n")
    config_file = tmp_path / "config.py"
    config_file.write_text(
        "from segnext_jax import config\n"
        "def get_config():\n"
        "    c = config.base_config()\n"
        "    c.model.variant = 'tiny'\n"
        "    c.data.name = 'folder'\n"
        f"    c.data.folder = {str(tmp_path)!r}\n"
        "    return c\n"
    )
    arguments = ["--from", str(path), "--to", str(target), f"--config={config_file}"]
    assert run(arguments) == 0
    (tmp_path / "classes.txt").unlink()
    config = reading.stored_config(target)
    assert resolve_spec(config.data).classes == ("road", "crack", "sky")


def test_mmsegmentations_files_keep_its_rules(make_state_dict):
    for dialect, alignment in (("mmseg1", "pad"), ("official", "resize")):
        content = make_state_dict("base", 150, dialect=dialect)
        _, config, _ = folder.convert(content)
        assert config.evaluation.alignment == alignment


def test_lightnings_names_are_read(make_state_dict, tmp_path):
    plain = make_state_dict("tiny", 19)
    wanted, _, _ = folder.convert(plain)
    for prefix in ("model.", "net.", "model.network."):
        named = {prefix + name: value for name, value in plain.items()}
        content = {"state_dict": named, "epoch": 3, "pytorch-lightning_version": "2"}
        given, _, _ = folder.convert(content)
        jax.tree.map(np.testing.assert_array_equal, given.variables, wanted.variables)
        # What else the training module holds is named, not taken.
        named["criterion.weight"] = np.ones(19, np.float32)
        with pytest.raises(ValueError, match=r"criterion.weight \[19\] are not"):
            folder.convert(content)


def test_rank_and_data_set_can_be_given(checkpoint, tmp_path):
    arguments = ["--from", str(checkpoint), "--to", str(tmp_path / "new")]
    assert run([*arguments, "--rank", "64", "--dataset", "cityscapes"]) == 0
    assert reading.read(tmp_path / "new").config.model.rank == 64


def test_config_file_gives_the_settings(checkpoint, tmp_path, capsys):
    path = tmp_path / "config.py"
    path.write_text(
        "from segnext_jax import config\n"
        "def get_config():\n"
        "    c = config.base_config()\n"
        "    c.model.variant = 'tiny'\n"
        "    c.data.name = 'cityscapes'\n"
        "    c.batch_size = 8\n"
        "    return c\n"
    )
    arguments = ["--from", checkpoint, "--to", tmp_path / "new", "--config", path]
    assert run([str(argument) for argument in arguments]) == 0
    assert reading.read(tmp_path / "new").config.batch_size == 8
    path.write_text(path.read_text().replace("'tiny'", "'base'"))
    line = refuse(capsys, *arguments, "--overwrite")
    assert "config.model.variant is 'base', the checkpoint is SegNeXt, tiny" in line


@pytest.mark.parametrize("kind", ["backbone", "classifier"])
def test_encoder_becomes_a_folder_to_start_from(
    kind, make_state_dict, tmp_path, capsys
):
    given = make_state_dict("tiny", 1000, kind)
    files.write(tmp_path / "mscan_t.npz", given, {})
    new = tmp_path / "new"
    assert run(["--from", str(tmp_path / "mscan_t.npz"), "--to", str(new)]) == 0
    assert "use the folder as config.init_from" in capsys.readouterr().out
    assert "decode_head" not in reading.read(new).variables["params"]
    back = tmp_path / "back.npz"
    assert run(["--from", str(new), "--to", str(back)]) == 0
    assert list(files.read(back)) == list(given)


def test_head_for_other_classes_is_left_to_training(
    checkpoint, make_state_dict, tmp_path, capsys
):
    arguments = ["--from", checkpoint, "--to", tmp_path / "new", "--dataset", "ade20k"]
    line = refuse(capsys, *arguments)
    assert "conv_seg.weight [19, 256, 1, 1] (needed [150, 256, 1, 1])" in line
    assert not (tmp_path / "new").exists()
    assert run([*map(str, arguments), "--not_strict"]) == 0
    output = capsys.readouterr().out
    assert "of another shape, left fresh: 2" in output
    assert "use the folder as config.init_from" in output
    initial = convert.from_state_dict(make_state_dict("tiny", 150, seed=1)).variables
    merged, summary = convert.merge(initial, reading.read(tmp_path / "new").variables)
    assert summary.missing == (
        "decode_head.conv_seg.kernel",
        "decode_head.conv_seg.bias",
    )
    assert merged["params"]["decode_head"]["conv_seg"]["kernel"].shape == (256, 150)


def test_run_workdir_is_exported_from_its_newest_checkpoint(model, tmp_path):
    checkpoint = pytest.importorskip("segnext_jax.checkpoints.checkpoints")
    stored = reading.read(model)
    variables = stored.variables
    (tmp_path / "config.json").write_text((model / "config.json").read_text())
    checkpoints = checkpoint.Checkpoints(tmp_path, num_kept=2)
    for step in (900, 1000):
        bias = np.full(19, step, np.float32)
        variables["params"]["decode_head"]["conv_seg"]["bias"] = bias
        checkpoints.save(step, model=variables, optimizer={"step": bias}, iterator={})
    checkpoints.close()
    target = tmp_path / "out.npz"
    assert run(["--from", str(tmp_path), "--to", str(target)]) == 0
    np.testing.assert_array_equal(files.read(target)["decode_head.conv_seg.bias"], 1000)


def test_bad_commands_end_in_one_line_and_write_nothing(
    checkpoint, model, make_state_dict, tmp_path, capsys
):
    new = tmp_path / "new"
    resnet = tmp_path / "resnet.npz"
    files.write(resnet, {"layer1.0.conv1.weight": np.zeros((64, 64, 1, 1))}, {})
    odd = tmp_path / "odd.npz"
    files.write(odd, make_state_dict("tiny", 42), {})
    cut = tmp_path / "cut.npz"
    cut.write_bytes(checkpoint.read_bytes()[:-9])
    before = sorted(tmp_path.iterdir())
    for arguments, said in (
        (("--from", tmp_path / "none.pth", "--to", new), "is not there"),
        (("--from", resnet, "--to", new), "They look like a ResNet's"),
        (("--from", cut, "--to", new), "Fetch it again"),
        (("--from", odd, "--to", new, "--dataset", "voc2012"), "SegNeXt, tiny, 42"),
        (("--from", odd, "--to", new, "--dataset", "ade"), "unknown data set 'ade'"),
        (("--from", checkpoint, "--to", new / "a.npz"), "Convert to a folder first"),
        (("--from", checkpoint, "--to", new, "--dialect", "jseg"), "Leave it out"),
        (("--from", model, "--to", new), "must end in one of .pth"),
        (("--from", model, "--to", tmp_path / "a.npz", "--rank", 3), "--rank are for"),
        (("--from", tmp_path, "--to", tmp_path / "a.npz"), "or a model folder"),
    ):
        assert said in refuse(capsys, *arguments)
    assert sorted(tmp_path.iterdir()) == before


def test_existing_targets_are_kept(checkpoint, model, tmp_path, capsys):
    (tmp_path / "photo.png").write_text("dear")
    arguments = ("--from", checkpoint, "--to", tmp_path, "--overwrite")
    assert "holds other files" in refuse(capsys, *arguments)
    new = tmp_path / "new"
    new.mkdir()
    arguments = ["--from", str(checkpoint), "--to", str(new)]
    assert run(arguments) == 0
    assert "holds a model" in refuse(capsys, *arguments)
    assert run([*arguments, "--overwrite"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "photo.png"]


def test_failed_writing_of_a_folder_leaves_the_old_one(
    checkpoint, model, monkeypatch, capsys
):
    before = (model / "config.json").read_text()

    def fail(path, text):
        raise OSError("disk is full")

    monkeypatch.setattr(pathlib.Path, "write_text", fail)
    line = refuse(capsys, "--from", checkpoint, "--to", model, "--overwrite")
    assert "disk is full" in line
    assert (model / "config.json").read_text() == before
    assert (model / "model").is_dir()


@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": 3, "PALETTE": 3},
        {"CLASSES": [1, None, []], "PALETTE": [[1, 2], [3], "abc"]},
        {"CLASSES": {"a": 1}, "PALETTE": np.ones((3, 3))},
        {"dataset_meta": {"classes": np.ones(3), "palette": [[1, 2, 256]] * 3}},
    ],
)
def test_what_names_no_classes_says_nothing(meta, make_state_dict):
    content = {"state_dict": make_state_dict("tiny", 3), "meta": meta}
    _, config, remarks = folder.convert(content)
    assert config.data.classes == ("class 0", "class 1", "class 2")
    assert "classes: class 0 to class 2, without names" in remarks
