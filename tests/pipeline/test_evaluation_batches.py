import cv2
import numpy as np
import pytest

from segnext_jax.datasets.decode import encode_label
from segnext_jax.pipeline import eval_batches, resize_for_network

SIZES = [(20, 33), (33, 20), (20, 33), (20, 33), (41, 17), (33, 20), (20, 33), (20, 33)]


class Mixed:
    """Photographs of several sizes, the grey level of each being its number."""

    def __init__(self, bad: int | None = None):
        self.bad = bad
        self.reads = []

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, index):
        self.reads.append(index)
        labels = np.full(SIZES[index], index, np.uint8)
        if index == self.bad:
            labels[0, 0] = 200
        image = np.full((*SIZES[index], 3), 10 * index, np.uint8)
        return {
            "image": cv2.imencode(".png", image)[1].tobytes(),
            "label": encode_label(labels),
            "image_id": f"photo_{index}",
        }


def batches(source=None, **options):
    defaults = {"num_classes": 8, "batch_size": 2, "scale": (66, 40), "multiple": 32}
    return list(eval_batches(source or Mixed(), **{**defaults, **options}))


def test_every_example_comes_exactly_once_in_a_fixed_order():
    real = [
        [
            name
            for name, is_real in zip(b["image_id"], b["mask"], strict=True)
            if is_real
        ]
        for b in batches()
    ]
    expected = [[0, 2], [3, 6], [7], [1, 5], [4]]
    assert real == [[f"photo_{i}" for i in group] for group in expected]


def test_copies_fill_the_last_batch_of_a_size():
    last = batches(batch_size=4)[-1]
    assert last["mask"].tolist() == [True, False, False, False]
    assert last["mask"].dtype == bool
    assert last["image_id"] == ["photo_4"] * 4
    assert (last["image"] == 40).all() and (last["label"] == 4).all()


def test_images_have_the_networks_size_and_labels_their_own():
    shapes = {(b["image"].shape, b["label"].shape) for b in batches()}
    assert shapes == {
        ((2, 64, 96, 3), (2, 20, 33)),
        ((2, 96, 64, 3), (2, 33, 20)),
        ((2, 96, 32, 3), (2, 41, 17)),
    }
    shapes = {b["image"].shape for b in batches(scale=None, multiple=1)}
    assert shapes == {(2, 20, 33, 3), (2, 33, 20, 3), (2, 41, 17, 3)}
    for batch in batches():
        number = int(batch["label"][0, 0, 0])
        image = np.full((*SIZES[number], 3), 10 * number, np.uint8)
        np.testing.assert_array_equal(
            batch["image"][0], resize_for_network(image, (66, 40), 32)
        )


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_get_their_rows_of_the_same_global_batches(process_count):
    whole = batches(batch_size=4)
    parts = [
        batches(batch_size=4, process_index=i, process_count=process_count)
        for i in range(process_count)
    ]
    assert {len(part) for part in parts} == {len(whole)}
    for step, batch in enumerate(whole):
        for name in ("image", "label", "mask"):
            joined = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(joined, batch[name])
        assert batch["image_id"] == [n for p in parts for n in p[step]["image_id"]]


def test_only_the_first_examples_where_a_number_is_given():
    names = {name for b in batches(max_examples=3) for name in b["image_id"]}
    assert names == {"photo_0", "photo_1", "photo_2"}
    assert len(batches(max_examples=100)) == len(batches())


def test_reading_stays_one_batch_ahead():
    source = Mixed()
    iterator = eval_batches(
        source, num_classes=8, batch_size=1, scale=None, num_threads=2
    )
    next(iterator)
    # All of them once for their sizes, then the first two.
    assert len(source.reads) <= len(SIZES) + 2
    iterator.close()


def test_a_bad_example_is_named():
    with pytest.raises(
        ValueError, match=r"^photo_5: label ids .* found 200 on 1 pixels"
    ):
        batches(Mixed(bad=5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "positive multiple"),
        ({"batch_size": 3, "process_count": 2}, "3 examples and 2 processes. Use 2"),
        ({"multiple": 0}, "multiple must be at least 1"),
        ({"process_index": 1}, r"\[0, 1\)"),
        ({"max_examples": 0}, "nothing to evaluate"),
    ],
)
def test_impossible_options_are_refused_before_reading(options, message):
    source = Mixed()
    with pytest.raises(ValueError, match=message):
        eval_batches(
            source, **{"num_classes": 8, "batch_size": 2, "scale": None, **options}
        )
    assert not source.reads
