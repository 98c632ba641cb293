"""`python -m segnext_jax.predict`: what it reads, what it writes, when it stops."""

import fnmatch
import importlib.util
import pathlib
import tarfile
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image

import segnext_jax
from segnext_jax.datasets import SPECS
from segnext_jax.images.decode import decode_image
from segnext_jax.predict.__main__ import main
from segnext_jax.predict.benchmark_formats import FORMATS
from segnext_jax.predict.inputs import find_inputs

from .stand_in import RedIsClass, files_below, predict, read_labels, write_image

ROOT = pathlib.Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"


def test_folders_keep_their_paths_and_formats_have_theirs(tmp_path):
    photos = tmp_path / "photos"
    images = {
        name: write_image(photos / f"{name}.png", seed)
        for seed, name in enumerate(["a", "sub/b.c", "sub/deep/a"])
    }
    (photos / "notes.txt").write_text("no image")
    write_image(photos / ".hidden" / "x.png")
    formats = "labels", "overlay", "side_by_side", "probabilities"
    assert predict([photos], tmp_path / "out", formats=formats) == []
    suffixes = ".png", ".jpg", ".jpg", ".npz"
    assert files_below(tmp_path / "out") == sorted(
        f"{kind}/{name}{suffix}"
        for kind, suffix in zip(formats, suffixes, strict=True)
        for name in images
    )
    for name, image in images.items():
        path = tmp_path / "out" / "labels" / f"{name}.png"
        np.testing.assert_array_equal(read_labels(path), image[..., 0])
        with Image.open(path) as opened:
            shown = np.asarray(opened.convert("RGB"))
        colours = np.array(SPECS["camvid"].colours)
        np.testing.assert_array_equal(shown, colours[image[..., 0]])
        with np.load(tmp_path / "out" / "probabilities" / f"{name}.npz") as found:
            labels = found["probabilities"].argmax(-1)
            np.testing.assert_array_equal(labels, image[..., 0])


def test_words_are_files_folders_and_patterns_each_input_once(tmp_path):
    for name in ("x/a.png", "x/b.JPG", "x/y/c.png", "d.dat"):
        write_image(tmp_path / pathlib.Path(name).with_suffix(".png"))
        (tmp_path / name).touch()
    words = [tmp_path / "d.dat", tmp_path / "x" / "*.png", tmp_path / "x" / "**" / "*"]
    found = find_inputs([str(word) for word in words])
    names = [str(item.name) for item in found]
    # b.JPG comes by the second pattern alone, c with its folder.
    assert sorted(names) == ["a", "b", "b", "d", "y/c"]
    (tmp_path / "empty").mkdir()
    for word, message in {
        "empty": "an input folder must hold images or videos",
        "*.gif": "an input pattern must match",
        "nothing.png": "does not exist",
    }.items():
        with pytest.raises(ValueError, match=message):
            find_inputs([str(tmp_path / word)])


@pytest.mark.parametrize("output", ["", "out"])
def test_outputs_within_the_inputs_are_not_read_again(tmp_path, output):
    write_image(tmp_path / "photos" / "a.png")
    for existing in ("error", "overwrite"):
        predict([tmp_path], tmp_path / output, existing=existing)
        paths = [pathlib.Path("photos/a.png")]
        paths += [pathlib.Path(output, "labels/photos/a.png")]
        paths += [pathlib.Path(output, "overlay/photos/a.jpg")]
        assert files_below(tmp_path) == sorted(map(str, paths))


def test_images_of_one_size_go_together_and_large_ones_alone(tmp_path):
    sizes = [(20, 30), (30, 20), (40, 50)]
    images = [
        write_image(tmp_path / "in" / f"{i:02d}.png", i, sizes[i % 3])
        for i in range(21)
    ]
    network = RedIsClass(SPECS["camvid"], large_from=40 * 50)
    formats = "labels", "probabilities"
    predict([tmp_path / "in"], tmp_path, network=network, batch_size=4, formats=formats)
    # In the hands of two threads.
    assert sorted(network.batches) == sorted([4, 4, 2, 1, 2, 1])
    for number, image in enumerate(images):
        labels = read_labels(tmp_path / "labels" / f"{number:02d}.png")
        np.testing.assert_array_equal(labels, image[..., 0])
        with np.load(tmp_path / "probabilities" / f"{number:02d}.npz") as found:
            assert found["probabilities"].shape == (*image.shape[:2], 11)


def test_unreadable_files_are_named_and_the_rest_go_on(tmp_path):
    image = write_image(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"\xff\xd8 not a photograph")
    (tmp_path / "in" / "empty.png").touch()
    (tmp_path / "in" / "film.mp4").write_bytes(b"not a film")
    failures = predict([tmp_path / "in"], tmp_path / "out")
    assert [f.path.name for f in failures] == ["bad.jpg", "empty.png", "film.mp4"]
    for failure in failures:
        assert failure.path.name in failure.reason
    labels = read_labels(tmp_path / "out" / "labels" / "good.png")
    np.testing.assert_array_equal(labels, image[..., 0])
    assert len(files_below(tmp_path / "out")) == 2
    (tmp_path / "in" / "good.png").unlink()
    with pytest.raises(ValueError, match=r"none of 3 is. The first: .*bad\.jpg"):
        predict([tmp_path / "in"], tmp_path / "out")


def test_what_exists_stops_the_run_or_is_left_or_replaced(tmp_path):
    write_image(tmp_path / "in" / "a.png")
    write_image(tmp_path / "in" / "b.png")
    out = tmp_path / "out"
    path = out / "labels" / "a.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"labels/a\.png exists. Choose --existing"):
        predict([tmp_path / "in"], out)
    assert files_below(out) == ["labels/a.png"]
    predict([tmp_path / "in"], out, existing="skip")
    assert path.read_bytes() == b"mine"
    assert len(files_below(out)) == 4
    predict([tmp_path / "in"], out, existing="overwrite")
    assert read_labels(path).shape == (20, 30)


def test_inputs_are_never_replaced_and_outputs_have_one_input(tmp_path):
    write_image(tmp_path / "labels" / "a.png")
    with pytest.raises(ValueError, match="outputs must not replace inputs"):
        predict([tmp_path / "labels" / "a.png"], tmp_path, existing="overwrite")
    write_image(tmp_path / "x" / "a.bmp")
    words = tmp_path / "labels" / "a.png", tmp_path / "x" / "a.bmp"
    with pytest.raises(ValueError, match=r"would come from both .*a\.png and .*a\.bmp"):
        predict(words, tmp_path / "out")


# Odd sizes; Motion JPEG is what every OpenCV writes and reads.
def test_videos_become_videos_and_frames(tmp_path):
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (66, 49))
    for value in (0, 50, 100, 150, 200):
        writer.write(np.full((49, 66, 3), value, np.uint8))
    writer.release()
    network = RedIsClass(SPECS["camvid"])
    out = tmp_path / "out"
    formats = "labels", "overlay", "side_by_side"
    assert predict([path], out, network=network, formats=formats, batch_size=3) == []
    assert network.batches == [3, 2]
    assert files_below(out) == [
        *(f"labels/film/{number:06d}.png" for number in range(5)),
        *("overlay/film.mp4", "side_by_side/film.mp4"),
    ]
    for name, height in (("overlay", 48), ("side_by_side", 240)):
        capture = cv2.VideoCapture(str(out / name / "film.mp4"))
        assert capture.get(cv2.CAP_PROP_FPS) == 5
        frames = [capture.read()[1] for _ in range(5)]
        assert not capture.read()[0]
        assert frames[0].shape[0] >= height
        assert frames[4].mean() > frames[0].mean()
    with pytest.raises(ValueError, match="--format=ade20k is for images"):
        predict([path], out, spec="ade20k", formats=("ade20k",))


@pytest.mark.parametrize(
    ("name", "image", "expected", "member"),
    [
        ("ade20k", "ADE_test_01", "ADE_test_01.png", "ADE_test_01.png"),
        (
            "cityscapes",
            "berlin/berlin_000000_000019_leftImg8bit",
            "berlin_000000_000019_pred_labelIds.png",
            "berlin_000000_000019_pred_labelIds.png",
        ),
        (
            "voc",
            "2008_000006",
            "results/VOC2012/Segmentation/comp6_test_cls/2008_000006.png",
            "results/VOC2012/Segmentation/comp6_test_cls/2008_000006.png",
        ),
        ("coco_stuff", "000000000139", "000000000139.png", None),
        ("loveda", "Urban/4191", "4191.png", "4191.png"),
    ],
)
def test_servers_get_their_ids_names_and_archives(
    tmp_path, name, image, expected, member
):
    benchmark = FORMATS[name]
    num_classes = benchmark.spec.num_classes
    pixels = write_image(
        tmp_path / "in" / f"{image}.png", size=(50, 60), num_classes=num_classes
    )
    train_ids = pixels[..., 0]
    assert len(np.unique(train_ids)) == num_classes
    predict([tmp_path / "in"], tmp_path, spec=benchmark.dataset, formats=(name,))
    path = tmp_path / name / expected
    written = read_labels(path)
    # The table by which the official files are prepared, backwards.
    builder = {"voc": "voc2012"}.get(name, name)
    train_id_of = {
        **{"ade20k": {i: i - 1 for i in range(1, 151)}},
        **{"voc": {i: i for i in range(21)}, "loveda": {i: i for i in range(7)}},
    }.get(name) or prepared_ids(builder)
    found = np.vectorize(train_id_of.__getitem__)(written)
    np.testing.assert_array_equal(found, train_ids)
    with Image.open(path) as opened:
        assert opened.mode == ("P" if name == "voc" else "L")
    archives = [f for f in files_below(tmp_path) if f.endswith((".zip", ".tar"))]
    if member is None:
        assert archives == []
    elif name == "voc":
        assert archives == ["voc.tar"]
        with tarfile.open(tmp_path / "voc.tar") as archive:
            assert archive.getnames() == [member]
    else:
        assert archives == [f"{name}.zip"]
        with zipfile.ZipFile(tmp_path / f"{name}.zip") as archive:
            assert archive.namelist() == [member]
            assert archive.read(member) == path.read_bytes()


def prepared_ids(name):
    """Return raw id -> train id of data/<name>/prepare.py."""
    path = ROOT / "data" / name / "prepare.py"
    module_spec = importlib.util.spec_from_file_location(f"prepare_{name}", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    tables = [
        value.train_id_of
        for value in vars(module).values()
        if isinstance(value, type)
        and isinstance(getattr(value, "train_id_of", 0), dict)
    ]
    return tables[-1]


def test_cityscapes_script_finds_each_prediction_once(tmp_path):
    samples = SHARED / "data" / "samples" / "cityscapes"
    truths = sorted((samples / "gtFine").rglob("*_gtFine_labelIds.png"))[:3]
    if not truths:
        pytest.skip(
            "needs ../shared/data/samples, which only developers' machines have"
        )
    for truth in truths:
        relative = truth.relative_to(samples / "gtFine").parent
        name = truth.name.replace("_gtFine_labelIds", "_leftImg8bit")
        write_image(tmp_path / "leftImg8bit" / relative / name, num_classes=19)
    predict([tmp_path / "leftImg8bit"], tmp_path, "cityscapes", formats=("cityscapes",))
    written = [path.name for path in (tmp_path / "cityscapes").iterdir()]
    for truth in truths:
        # The pattern of getPrediction in evalPixelLevelSemanticLabeling.py.
        city, sequence, frame, *_ = truth.name.split("_")
        assert len(fnmatch.filter(written, f"{city}_{sequence}_{frame}*.png")) == 1


def test_photographs_of_all_sets_are_read(tmp_path):
    samples = SHARED / "data" / "samples"
    photos = [
        *sorted((samples / "voc2012").rglob("JPEGImages/*.jpg"))[:3],
        *sorted((samples / "ade20k").rglob("validation/*.jpg"))[:3],
        *sorted((samples / "loveda").rglob("images_png/*.png"))[:1],
    ]
    if not photos:
        pytest.skip(
            "needs ../shared/data/samples, which only developers' machines have"
        )
    photos += sorted((SHARED / "data" / "camvid" / "images" / "val").iterdir())[:3]
    assert predict(photos, tmp_path, formats=("labels",)) == []
    for path in photos:
        red = decode_image(path.read_bytes())[..., 0]
        labels = read_labels(tmp_path / "labels" / f"{path.stem}.png")
        np.testing.assert_array_equal(labels, red % 11)
    assert len(list((tmp_path / "labels").iterdir())) == len(photos)


def test_servers_refuse_other_classes_and_names(tmp_path):
    write_image(tmp_path / "photo.png")
    with pytest.raises(ValueError, match="with the 150 classes of ade20k .*has 11 "):
        predict([tmp_path / "photo.png"], tmp_path / "out", formats=("ade20k",))
    with pytest.raises(ValueError, match="CITY_NUMBER_NUMBER.*got photo"):
        predict(
            [tmp_path / "photo.png"],
            tmp_path / "out",
            spec="cityscapes",
            formats=("cityscapes",),
        )
    with pytest.raises(ValueError, match="--format must be some of.*got gif"):
        predict([tmp_path / "photo.png"], tmp_path / "out", formats=("gif",))
    assert not (tmp_path / "out").exists()


def test_the_command_writes_what_python_gives(folder, tmp_path, capsys):
    image = write_image(tmp_path / "in" / "a.png", size=(45, 70), num_classes=256)
    (tmp_path / "in" / "b.png").write_text("broken")
    windows = ("evaluation.mode=slide", "evaluation.window=32,32")
    overrides = (*windows, "evaluation.stride=32,32")
    with pytest.raises(SystemExit) as stop:
        main(
            [
                *(f"--checkpoint={folder}", str(tmp_path / "in")),
                *(f"--output={tmp_path / 'out'}", "--format=labels,probabilities"),
                *(f"--config.{override}" for override in overrides),
            ]
        )
    assert stop.value.code == 3
    assert "1 of 2 inputs could not be predicted:\n" in capsys.readouterr().err
    model = segnext_jax.load(folder, overrides=overrides)
    result = model.predict(image)
    labels = read_labels(tmp_path / "out" / "labels" / "a.png")
    np.testing.assert_array_equal(labels, result.labels)
    with np.load(tmp_path / "out" / "probabilities" / "a.npz") as found:
        np.testing.assert_allclose(
            found["probabilities"], result.probabilities, atol=5e-4, rtol=0
        )
    pixels = decode_image((tmp_path / "in" / "a.png").read_bytes())
    np.testing.assert_array_equal(pixels, image)
