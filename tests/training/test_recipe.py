"""A folder of photographs: what is chosen for it, its run, and what looks at a run."""

import importlib.util
import json
import pathlib
import re

import cv2
import numpy as np
import pytest

import segnext_jax
from segnext_jax import __main__ as program
from segnext_jax import config as config_lib
from segnext_jax.cli import command
from segnext_jax.training import recipe

COLOURS = np.array([(200, 30, 30), (30, 30, 200), (0, 0, 0)], np.uint8)
SHORT = (
    *("init_from=", "num_steps=2", "eval_every=2", "data.crop_size=32,32"),
    *("data.base_scale=64,48", "evaluation.scale=64,48", "evaluation.max_images=8"),
    *("batch_size=8", "log_every=1", "optimizer.warmup_steps=1"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fifty photographs with masks of two colours and black; no names, no splits."""
    root = tmp_path_factory.mktemp("data") / "my leaves"
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i in range(50):
        places = rng.choice(3, (6, 8), p=[0.5, 0.4, 0.1]).repeat(8, 0).repeat(8, 1)
        photo = COLOURS[places] // 2 + rng.integers(0, 99, (48, 64, 3), np.uint8)
        cv2.imwrite(str(root / "images" / f"{i}.png"), photo[..., ::-1])
        cv2.imwrite(str(root / "masks" / f"{i}.png"), COLOURS[places][..., ::-1])
    return root


@pytest.fixture(scope="module")
def run(folder, tiny_network, tmp_path_factory):
    """The run's folder and the network of `segnext_jax.train`."""
    before = sorted(folder.rglob("*"))
    workdir = tmp_path_factory.mktemp("runs") / "leaves"
    network = segnext_jax.train(
        folder, workdir=workdir, overrides=(*tiny_network, *SHORT)
    )
    assert sorted(folder.rglob("*")) == before
    return workdir, network


def test_training_a_folder_returns_its_network(run):
    _, network = run
    assert network.spec.classes == ("colour c81e1e", "colour 1e1ec8")
    assert network.spec.colours == ((200, 30, 30), (30, 30, 200))


def test_the_choice_is_a_config_file_that_goes_on_with_the_run(run, folder, caplog):
    workdir, _ = run
    file = workdir.with_name("leaves.py")
    text = file.read_text()
    lines = [line for line in text.splitlines()[:12] if str(file) not in line]
    assert max(map(len, lines)) <= 88
    text = text.replace("\n#  ", "")
    assert "# - There is no classes.txt: the 2 colours of the masks are the" in text
    assert "on 8 CPU devices: fitted into 64x48, crops of 32x32," in text
    config = config_lib.load(str(file))
    stored = config_lib.from_json((workdir / "config.json").read_text())
    assert config.data.ignore_colours == ((0, 0, 0),)
    assert config.to_dict() == stored.to_dict()
    program.dispatch(["train", str(folder), f"--workdir={workdir}"])
    assert f"Going by {file}" in caplog.text and "is finished" in caplog.text
    # The evaluations say how many images they took.
    assert "Evaluation: 8 of 10 images in 1 batch." in caplog.text
    assert "Evaluation at step 2 of at most 8 images: mIoU" in caplog.text
    results = json.loads((workdir / "evaluation.json").read_text())
    assert results["settings"]["fields"]["evaluation.max_images"] == 8
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert any("mIoU" in line for line in lines)


def test_the_worst_images_are_drawn_in_their_order(run, tmp_path, caplog):
    workdir, _ = run
    arguments = ["evaluate", f"--checkpoint={workdir}", f"--output={tmp_path / 'out'}"]
    program.dispatch([*arguments, "--worst=3", "--config.evaluation.max_images=0"])
    worst = tmp_path / "out" / "worst"
    page = (worst / "index.html").read_text()
    assert "The worst 3 of 10 images" in page
    found = re.findall(r"<p>\d\. (\w+): ([\d.]+)% of the.*\n<img src='(.*?)'", page)
    shares = [float(share) for _, share, _ in found]
    assert shares == sorted(shares, reverse=True) and len(shares) == 3
    results = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert shares[0] >= 100 * (1 - results["aAcc"])
    for place, (name, _, file) in enumerate(found, start=1):
        assert file == f"{place:02}_{name}.png"
        # Four panels, enlarged five times.
        assert cv2.imread(str(worst / file)).shape[1] == 4 * (320 + 8) - 8
    code = command.run(program.dispatch, [*arguments, "--worst=-1"])
    assert code == 1


def test_a_rate_is_suggested_and_nothing_else_is_stored(run, tmp_path, capsys):
    file = run[0].with_name("leaves.py")
    output = tmp_path / "rate.png"
    options = ("--steps=4", "--config.model.depths=1,0,0,0")
    arguments = [f"--config={file}", f"--output={output}", *options]
    program.dispatch(["find-lr", *arguments, "--range=1e-5,1e-2"])
    assert cv2.imread(str(output)).shape == (420, 720, 3)
    said = re.search(r"learning_rate=(\S+),", capsys.readouterr().out)
    assert said and 1e-6 <= float(said[1]) <= 1e-3
    assert list(tmp_path.iterdir()) == [output]
    assert command.run(program.dispatch, ["find-lr", *arguments, "--range=1,1"]) == 1
    assert "--range must be two rates above 0" in capsys.readouterr().err


def choice_of(folder, monkeypatch, device=None, overrides=("init_from=",)):
    if device is not None:
        monkeypatch.setattr(recipe.jax, "devices", lambda: [device])
    return recipe.choose(folder, overrides)[0]


class Gpu:
    platform = "gpu"

    def __init__(self, gibibytes: float):
        self._bytes = gibibytes * 2**30

    def memory_stats(self):
        return {"bytes_limit": self._bytes}


def test_a_gpu_gets_what_its_memory_holds_and_a_long_run(folder, monkeypatch):
    config = choice_of(folder, monkeypatch)
    assert config.model.variant == "tiny" and config.data.num_workers == 0
    assert config.data.crop_size == (32, 32) and config.data.base_scale == (64, 48)
    assert (config.batch_size, config.num_steps) == (8, 800)
    assert (config.optimizer.learning_rate, config.model.drop_path_rate) == (3e-3, 0)
    sizes = ("init_from=", "data.crop_size=512,512")
    config = choice_of(folder, monkeypatch, Gpu(80), sizes)
    assert (config.batch_size, config.num_steps) == (16, 8000)
    config = choice_of(folder, monkeypatch, Gpu(8), sizes)
    assert config.batch_size == 8
    large = (*sizes, "model.variant=large", "num_steps=70")
    config = choice_of(folder, monkeypatch, Gpu(8), large)
    assert (config.batch_size, config.optimizer.warmup_steps) == (2, 7)


def test_published_weights_bring_the_papers_rate(folder, monkeypatch):
    monkeypatch.setattr(recipe.weights, "find", lambda name: pathlib.Path(name))
    config = choice_of(folder, monkeypatch, overrides=("model.variant=small",))
    assert config.init_from == "segnext-small-ade20k"
    assert config.optimizer.learning_rate == 6e-5
    assert config.model.drop_path_rate is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("masks", "must have one folder of masks"),
        ("mask", "photographs in .*/images without a mask: 7"),
        ("one class", "there is one class only, 'leaf'"),
        ("all black", "there is one class only, .id 0."),
        ("field", "config.batchsize is not a field. Did you mean config.batch_size?"),
    ],
)
def test_what_cannot_be_trained_on_is_one_sentence(
    folder, tmp_path, monkeypatch, capsys, spoil, message
):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "photos"
    (root / "masks").mkdir(parents=True)
    (root / "images").symlink_to(folder / "images")
    for path in (folder / "masks").iterdir():
        (root / "masks" / path.name).symlink_to(path)
    arguments = ["train", str(root), "--config.init_from="]
    if spoil == "masks":
        (root / "masks").rename(root / "elsewhere")
    elif spoil == "mask":
        (root / "masks" / "7.png").unlink()
    elif spoil == "field":
        arguments.append("--config.batchsize=8")
    else:
        (root / "classes.txt").write_text("leaf\n")
        for path in (root / "masks").iterdir():
            path.unlink()
            cv2.imwrite(str(path), np.zeros((48, 64), np.uint8))
        if spoil == "all black":
            (root / "classes.txt").unlink()
    assert command.run(program.dispatch, arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()
    text = " ".join(error[error.index(next(e for e in error if "error:" in e)) :])
    assert re.search(message, text), text
    assert not (tmp_path / "runs").exists()


def test_a_config_of_another_folder_is_not_gone_by(run, tmp_path, capsys):
    arguments = ["train", str(tmp_path), f"--workdir={run[0]}"]
    assert command.run(program.dispatch, arguments) == 1
    assert "Name another --workdir." in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        command.run(program.dispatch, ["train", str(tmp_path), "--config=shapes_tiny"])
    assert caught.value.code == 2


def test_the_file_is_python_that_needs_no_more(run):
    file = run[0].with_name("leaves.py")
    spec = importlib.util.spec_from_file_location("leaves", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.get_config().num_steps == 2
