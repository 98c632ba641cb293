import importlib.util
import pathlib

import numpy as np
import pytest

from segnext_jax.datasets import get_spec
from segnext_jax.images.decode import decode_image
from segnext_jax.pipeline import open_source
from segnext_jax.pipeline.transforms import decode_pair

SPEC = get_spec("shapes")
PREPARE = pathlib.Path(__file__).parents[2] / "data" / "shapes" / "prepare.py"
module_spec = importlib.util.spec_from_file_location("shapes_prepare", PREPARE)
shapes = importlib.util.module_from_spec(module_spec)
module_spec.loader.exec_module(shapes)


@pytest.fixture(scope="module")
def examples():
    builder = object.__new__(shapes.Shapes)
    return {
        split: [
            (decode_image(image), labels)
            for _, image, labels in (builder.load((split, i)) for i in range(count))
        ]
        for split, count in (("train", 200), ("val", 60))
    }


def test_an_image_is_a_function_of_split_and_index():
    image, labels = shapes.draw_example("train", 7)
    again_image, again_labels = shapes.draw_example("train", 7)
    np.testing.assert_array_equal(image, again_image)
    np.testing.assert_array_equal(labels, again_labels)
    for other in (("train", 8), ("val", 7)):
        assert (shapes.draw_example(*other)[0] != image).mean() > 0.9


def test_objects_of_all_classes_occur_and_are_large(examples):
    for split in ("train", "val"):
        labels = np.stack([labels for _, labels in examples[split]])
        assert labels.shape[1:] == (96, 128)
        shares = np.bincount(labels.ravel(), minlength=7) / labels.size
        assert 0.4 < shares[0] < 0.6
        assert (shares[1:] > 0.04).all() and (shares[1:] < 0.12).all()
        present = np.stack([[(x == c).any() for c in range(1, 7)] for x in labels])
        assert (present.mean(0) > 0.5).all()
        # Pixels of a class that is in the image at all.
        assert labels[labels > 0].size / present.sum() > 600


def mean_iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    confusion = np.bincount(7 * truth + prediction, minlength=49).reshape(7, 7)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return float((confusion.diagonal() / np.maximum(union, 1)).mean())


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("is_balanced", [False, True])
def test_colour_of_a_pixel_does_not_tell_its_class(examples, bits, is_balanced):
    """Fit the best classifier of single pixels by colour, on the training images.

    Every cell of an RGB histogram gets its most frequent class, in numbers of pixels or
    in shares of the class (which keeps ground from winning everywhere).
    """

    def cells_and_labels(split):
        images = np.stack([image for image, _ in examples[split]]).astype(int)
        cells = np.ravel_multi_index(
            tuple(np.moveaxis(images >> (8 - bits), -1, 0)), (2**bits,) * 3
        )
        labels = np.stack([labels for _, labels in examples[split]])
        return cells.ravel(), labels.ravel().astype(int)

    cells, labels = cells_and_labels("train")
    counts = np.bincount(7 * cells + labels, minlength=7 * 8**bits).reshape(-1, 7)
    if is_balanced:
        counts = counts / np.bincount(labels)
    cells, labels = cells_and_labels("val")
    assert mean_iou(counts.argmax(1)[cells], labels) < 0.15
    assert mean_iou(labels, labels) == 1.0


def test_every_class_has_the_same_mean_and_spread_of_colour(examples):
    images = np.stack([image for image, _ in examples["train"]]).astype(float)
    labels = np.stack([labels for _, labels in examples["train"]])
    means = np.array([images[labels == c].mean() for c in range(7)])
    spreads = np.array([images[labels == c].std() for c in range(7)])
    # 200 images hold about 120 objects of a class, each with two colours: standard
    # errors of 4 and 2 grey levels.
    assert np.ptp(means) < 16 and np.ptp(spreads) < 10


def test_texture_tells_the_classes_apart(examples):
    """Compare how grey levels change from pixel to pixel inside objects."""
    contrast = np.zeros(7)
    for c in range(7):
        steps, spread = [], []
        for image, labels in examples["train"][:100]:
            inside = labels == c
            inside[:, :-1] &= labels[:, 1:] == c
            inside[:, -1] = False
            if inside.sum() < 200:
                continue
            grey = image.astype(float).mean(-1)
            steps.append(np.abs(np.roll(grey, -1, 1) - grey)[inside].mean())
            spread.append(grey[inside].std())
        contrast[c] = np.mean(steps) / np.mean(spread)
    # Clouds change least, speckle most.
    assert contrast.argmin() == 0 and contrast.argmax() == 4
    assert contrast[5] > 1.5 * contrast[1]  # Narrow and wide stripes.
    assert contrast[4] > 1.3 * np.delete(contrast, 4).max()


def test_preparing_gives_the_drawn_examples(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shapes, "NUM_EXAMPLES", {"train": 3, "val": 2})
    assert shapes.main(shapes.Shapes, [f"--data_dir={tmp_path}"]) == 0
    assert "3 train, 2 val." in capsys.readouterr().out
    source = open_source(SPEC, "val", tmp_path)
    image, labels = decode_pair(source[1])
    drawn_image, drawn_labels = shapes.draw_example("val", 1)
    np.testing.assert_array_equal(labels, drawn_labels)
    # What JPEG at quality 95 costs on noise: 3.2.
    assert np.abs(image.astype(int) - drawn_image).mean() < 4
