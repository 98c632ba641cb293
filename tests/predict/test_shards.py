"""Shards, lists, tars, tables and manifests; a process that is killed goes on."""

import json
import pathlib
import random
import signal
import subprocess
import sys
import tarfile
import time

import jax
import numpy as np
import pytest
from pyarrow import parquet

import segnext_jax
from segnext_jax.datasets import SPECS
from segnext_jax.images.decode import decode_label
from segnext_jax.predict import predictor as predictor_lib
from segnext_jax.predict.__main__ import main
from segnext_jax.predict.inputs import read_list
from segnext_jax.predict.jobs import Options, plan
from segnext_jax.predict.run import run

from .stand_in import RedIsClass, files_below, predict, read_labels, write_image

ROOT = pathlib.Path(__file__).parents[2]
REAL = "segnext_jax.predict"


@pytest.fixture
def photos(tmp_path):
    """Twenty-three images of three sizes, and one that cannot be read."""
    sizes = [(20, 30), (30, 20), (24, 24)]
    for number in range(23):
        path = tmp_path / "in" / f"{number % 3}.d" / f"{number:02d}.x.png"
        write_image(path, number, sizes[number * number % 3])
    (tmp_path / "in" / "broken.png").write_bytes(b"no photograph")
    return tmp_path / "in"


@pytest.fixture
def listed(photos, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{p}\n" for p in sorted(photos.rglob("*.png"))))
    return path


def manifest(output, shard="00000-of-00001"):
    lines = (output / "manifests" / f"{shard}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def tar_members(output):
    found = {}
    for path in sorted((output / "tar").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.name not in found
                found[member.name] = tar.extractfile(member).read()
    return found


def table_rows(output):
    paths = sorted((output / "table").glob("*.parquet"))
    return [row for path in paths for row in parquet.read_table(path).to_pylist()]


def test_tars_and_table_hold_what_the_files_do(photos, tmp_path):
    failures = predict([photos], tmp_path / "files")
    formats = {"formats": ("labels", "overlay", "table"), "container": "tar"}
    out = tmp_path / "out"
    assert predict([photos], out, part_size=7, **formats) == failures != []
    members = tar_members(out)
    for number in range(23):
        name = f"{number % 3}.d/{number:02d}.x"
        key = f"{number % 3}.d/{number:02d}%2Ex"
        for kind, suffix in (("labels", "png"), ("overlay", "jpg")):
            expected = (tmp_path / "files" / kind / f"{name}.{suffix}").read_bytes()
            assert members.pop(f"{key}.{kind}.{suffix}") == expected
    assert not members
    rows = table_rows(out)
    assert [row["input"] for row in rows] == sorted(map(str, photos.rglob("*.png")))
    classes = SPECS["camvid"].classes
    for row in rows[:-1]:
        name = pathlib.Path(row["input"]).relative_to(photos)
        labels = read_labels(tmp_path / "files" / "labels" / name)
        counts = np.bincount(labels.ravel(), minlength=11)
        assert [row[f"pixels/{name}"] for name in classes] == counts.tolist()
        assert (row["height"], row["width"]) == labels.shape
        assert row["error"] is None
    assert rows[-1]["error"] == failures[0].reason and rows[-1]["height"] is None
    header, *parts, end = manifest(out)
    assert header["shard"] == [0, 1] and header["formats"] == list(formats["formats"])
    assert [part["num_inputs"] for part in parts] == [7, 7, 7, 3]
    assert [len(part["left_out"]) for part in parts] == [0, 0, 0, 1]
    assert sorted(files_below(out)) == sorted(
        [*(f for part in parts for f in part["files"])]
        + ["manifests/00000-of-00001.jsonl"]
    )
    assert end == {"is_complete": True, "num_inputs": 24, "num_left_out": 1}


def test_shards_of_a_list_are_the_whole_of_the_folder(photos, listed, tmp_path):
    predict([photos], tmp_path / "whole", formats=("labels",))
    out = tmp_path / "out"
    counts = [
        predict(
            str(listed),
            out,
            formats=("labels",),
            is_list=True,
            shard=(number, 3),
            part_size=2,
        )[:2]
        for number in (2, 0, 1)
    ]
    assert counts == [(8, 1), (8, 0), (8, 0)]
    below = pathlib.Path(*photos.parts[1:])
    for path in (tmp_path / "whole" / "labels").rglob("*.png"):
        name = path.relative_to(tmp_path / "whole" / "labels")
        other = out / "labels" / below / name
        assert other.read_bytes() == path.read_bytes()
        other.unlink()
    assert files_below(out / "labels") == []
    with pytest.raises(ValueError, match="must be of one number: .*-of-00003.jsonl is"):
        predict(str(listed), out, is_list=True, shard=(0, 2), existing="skip")


def test_a_list_is_read_as_far_as_it_is_predicted(photos):
    """Only so many names are taken from a list that never ends."""
    (path,) = photos.glob("0.d/00*")
    taken = []

    def endless():
        while True:
            (photos / f"{len(taken):06d}.png").symlink_to(path)
            (item,) = read_list_of(photos / f"{len(taken):06d}.png")
            taken.append(item)
            yield item

    network = RedIsClass(SPECS["camvid"])
    options = Options(
        photos.parent / "out",
        formats=("labels",),
        is_list=True,
        part_size=5,
        batch_size=2,
    )

    def stop(images, *arguments):
        if len(taken) > 60:
            raise KeyboardInterrupt
        return RedIsClass.predict_batch(network, images, *arguments)

    network.predict_batch = stop
    with pytest.raises(KeyboardInterrupt):
        run(network, plan(endless(), options, network.spec), options)
    # Two batches ahead, those in the hands of the threads, and the part of the last.
    assert len(taken) < 100


def read_list_of(path):
    listed = path.with_suffix(".txt")
    listed.write_text(f"{path}\n")
    return list(read_list(str(listed)))


def test_names_of_a_list_lie_below_the_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = tmp_path / "list"
    listed.write_bytes("/a/b.c.jpg\r\n\n../x/./y.png\nö.png".encode())
    names = [(str(item.path), str(item.name)) for item in read_list("list")]
    assert names == [("/a/b.c.jpg", "a/b.c"), ("../x/y.png", "x/y"), ("ö.png", "ö")]


def test_what_is_continued_must_be_the_same(photos, listed, tmp_path):
    out = tmp_path / "out"
    options = {"formats": ("labels",), "container": "tar", "is_list": True}
    options |= {"part_size": 7}
    first = predict(str(listed), out, **options)
    assert first[:2] == (24, 1)
    with pytest.raises(ValueError, match=r"outputs must be new: .*\.jsonl exists"):
        predict(str(listed), out, **options)
    again = predict(str(listed), out, existing="skip", **options)
    assert again[:2] == (24, 1) and again.failures == first.failures
    assert sum("is_complete" in line for line in manifest(out)) == 1
    for other, message in {
        "part_size": "part_size is 7 in .* and 9 here",
        "formats": r"formats is \['labels'\] in .* and \['overlay'\] here",
    }.items():
        changed = options | {"part_size": 9, "formats": ("overlay",)}
        changed = options | {other: changed[other]}
        with pytest.raises(ValueError, match=message):
            predict(str(listed), out, existing="skip", **changed)
    lines = listed.read_text().splitlines(keepends=True)
    listed.write_text("".join(lines[1:]))
    with pytest.raises(ValueError, match="the same inputs in the same order: part 0"):
        predict(str(listed), out, existing="skip", **options)
    # A tar that is missing is made again, and what is replaced leaves nothing behind.
    listed.write_text("".join(lines))
    before = tar_members(out)
    (out / "tar" / "00000-of-00001-000001.tar").unlink()
    predict(str(listed), out, existing="skip", **options)
    assert tar_members(out) == before
    predict(str(listed), out, existing="overwrite", **options | {"part_size": 12})
    assert len(files_below(out / "tar")) == 2 and tar_members(out) == before


def test_videos_are_for_files(tmp_path):
    (tmp_path / "film.mp4").touch()
    for options, message in (
        ({"container": "tar"}, "--container=tar is for images: got the video"),
        ({"formats": ("table",)}, "--format=table is for images: got the video"),
    ):
        with pytest.raises(ValueError, match=message):
            predict([tmp_path / "film.mp4"], tmp_path / "out", **options)


def test_inputs_come_by_name_or_by_list(tmp_path, capsys):
    for words in ([], ["a.png", "--list=b"]):
        with pytest.raises(SystemExit) as stop:
            main(["--checkpoint=x", f"--output={tmp_path / 'out'}", *words])
        assert stop.value.code == 2
        assert "as arguments or by --list, not by both" in capsys.readouterr().err
    for name in (tmp_path / "nothing", tmp_path):
        with pytest.raises(ValueError, match="--list must name a file with a path on"):
            read_list(str(name))


def test_impossible_options_are_refused(tmp_path):
    for options, message in (
        ({"shard": (2, 2)}, "--shard must be I/N with I from 0 to N - 1: got 2/2"),
        ({"part_size": 0}, "--part_size must be at least 1: got 0"),
        ({"container": "zip"}, "--container must be one of files, tar: got 'zip'"),
    ):
        with pytest.raises(ValueError, match=message):
            Options(tmp_path, **options)


@pytest.mark.parametrize("overrides", [(), ("evaluation.flip=true",)])
def test_devices_share_a_batch(folder, overrides):
    """Also where a copy fills up the batch, and where probabilities are asked for."""
    devices = jax.local_devices()
    assert len(devices) == 8
    one = segnext_jax.load(folder, overrides=overrides)
    all_of_them = predictor_lib.load(folder, overrides=overrides, devices=devices)
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (11, 33, 50, 3), np.uint8))
    shared = all_of_them.predict_batch(images, has_probabilities=True)
    alone = [block for i in images for block in one.predict_batch([i], True)]
    assert len(shared) == 11
    for ours, theirs in zip(shared, alone, strict=True):
        np.testing.assert_allclose(
            ours.probabilities, theirs.probabilities, rtol=1e-5, atol=1e-7
        )
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    (share,) = all_of_them._spread_inference.shard_fn({"x": np.zeros((16, 3))}).values()
    assert share.sharding.shard_shape(share.shape) == (2, 3)
    shards = jax.tree.leaves(all_of_them._copies)[0].addressable_shards
    assert {shard.device for shard in shards} == set(devices)


def kill(command, out, num_kills, rng, stable, most):
    """Kill a command again and again; what is done must stay as it is."""
    kept = {}
    for _ in range(num_kills):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT)
        while process.poll() is None and not (out / "manifests").exists():
            time.sleep(0.01)
        goal = len(stable(out)) + rng.randint(1, most)
        while process.poll() is None and len(stable(out)) < goal:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = {path: path.stat().st_ino for path in stable(out)}
        assert kept.items() <= found.items()
        kept = found
    return kept


def finished_files(out):
    return [p for p in (out / "labels").rglob("*.png") if not p.name.startswith(".")]


def listed_tars(out):
    path = out / "manifests" / "00000-of-00001.jsonl"
    lines = path.read_bytes().split(b"\n")[1:-1] if path.exists() else []
    parts = [json.loads(line) for line in lines]
    return [out / name for part in parts for name in part.get("files", [])]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Photographs of two sizes, a part of which are full batches of four."""
    path = tmp_path_factory.mktemp("photographs")
    files = [path / f"{number}.png" for number in range(24)]
    for number, file in enumerate(files):
        write_image(file, number, [(20, 30), (30, 20)][number % 2])
    return files


@pytest.mark.parametrize(
    ("program", "container", "num_kills"),
    [
        (REAL, "files", 1),
        # With a stand-in for the network: what is written is the same.
        ("tests.predict.stand_in", "tar", 1),
        pytest.param(REAL, "files", 25, marks=pytest.mark.slow),
        pytest.param(REAL, "tar", 25, marks=pytest.mark.slow),
    ],
)
def test_a_killed_process_goes_on_where_it_was(
    folder, model, photographs, tmp_path, monkeypatch, program, container, num_kills
):
    """SIGKILL at any moment: nothing is lost, and nothing is done twice."""
    rng = random.Random(num_kills)
    network = model if program == REAL else RedIsClass(SPECS["camvid"])
    expected = [found.labels for found in network.predict(photographs, batch_size=4)]
    names = []
    for number in range(64 + 32 * num_kills):
        names.append(tmp_path / "in" / f"{number:05d}.png")
        names[-1].parent.mkdir(exist_ok=True)
        names[-1].symlink_to(photographs[number % len(photographs)])
    names[17].unlink()
    (tmp_path / "list").write_text("".join(f"{name}\n" for name in names))
    out = tmp_path / "out"
    arguments = [
        *(f"--checkpoint={folder}", f"--list={tmp_path / 'list'}", f"--output={out}"),
        *("--existing=skip", "--part_size=8", f"--container={container}"),
        *("--batch_size=4", f"--format=labels{',table' * (container == 'tar')}"),
    ]
    stable, most = (listed_tars, 4) if container == "tar" else (finished_files, 25)
    command = [sys.executable, "-m", program, *arguments]
    kept = kill(command, out, num_kills, rng, stable, most)
    assert len(kept) > 0
    monkeypatch.setattr(predictor_lib, "load", lambda *_, **__: network)
    with pytest.raises(SystemExit):  # One is left out.
        main(arguments)
    assert kept.items() <= {p: p.stat().st_ino for p in stable(out)}.items()
    below = pathlib.Path(*names[0].parent.parts[1:])
    members = tar_members(out) if container == "tar" else {}
    for number, name in enumerate(names):
        if number == 17:
            continue
        if container == "tar":
            labels = decode_label(members.pop(str(below / f"{name.stem}.labels.png")))
        else:
            labels = read_labels(out / "labels" / below / name.name)
        differing = np.mean(labels != expected[number % len(expected)])
        assert differing < 0.01  # The size of the batch rounds.
    assert not members
    if container == "tar":
        rows = table_rows(out)
        assert [row["input"] for row in rows] == list(map(str, names))
        assert [n for n, row in enumerate(rows) if row["error"]] == [17]
        assert not [p for p in files_below(out) if "/." in p]  # No half of a file.
    *_, end = manifest(out)
    assert end == {"is_complete": True, "num_inputs": len(names), "num_left_out": 1}
    listed = {line["part"]: line["num_inputs"] for line in manifest(out)[1:-1]}
    assert listed == dict.fromkeys(range(len(names) // 8), 8)
