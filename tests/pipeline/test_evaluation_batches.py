import cv2
import numpy as np
import pytest

from segnext_jax.images.decode import encode_label
from segnext_jax.pipeline import EvaluationBatches, Fitting

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


FITTING = Fitting((66, 40), multiple=32)


def make(source=None, fitting=FITTING, **options):
    defaults = {"num_classes": 8, "batch_size": 2}
    return EvaluationBatches(source or Mixed(), fitting, **{**defaults, **options})


def batches(*arguments, **options):
    return list(make(*arguments, **options))


def test_every_example_comes_exactly_once_in_a_fixed_order():
    real = [
        [name for name, is_real in zip(b.image_ids, b.mask, strict=True) if is_real]
        for b in batches()
    ]
    expected = [[0, 2], [3, 6], [7], [1, 5], [4]]
    assert real == [[f"photo_{i}" for i in group] for group in expected]
    assert len(make()) == len(expected)


def test_images_of_one_input_size_share_batches_whatever_their_own_size():
    fitting = Fitting((66, 40), multiple=64)
    given = batches(fitting=fitting, batch_size=4)
    assert [b.image_ids for b in given] == [
        tuple(f"photo_{i}" for i in group)
        for group in ([0, 2, 3, 6], [7, 7, 7, 7], [1, 5, 4, 4])
    ]
    assert given[2].images[0].shape == (4, 128, 64, 3)
    assert [labels.shape for labels in given[2].labels] == [
        *[(33, 20), (33, 20)],
        *[(41, 17), (41, 17)],
    ]
    assert given[2].image_sizes == ((33, 20), (33, 20), (41, 17), (41, 17))


def test_copies_fill_the_last_batch_of_a_size():
    last = batches(batch_size=4)[-1]
    assert last.mask.tolist() == [True, False, False, False]
    assert last.mask.dtype == bool
    assert last.image_ids == ("photo_4",) * 4
    assert (last.images[0] == 40).all()
    assert all((labels == 4).all() for labels in last.labels)


def test_images_have_the_networks_size_and_labels_their_own():
    shapes = {(b.images[0].shape, b.labels[0].shape) for b in batches()}
    assert shapes == {
        ((2, 64, 96, 3), (20, 33)),
        ((2, 96, 64, 3), (33, 20)),
        ((2, 96, 32, 3), (41, 17)),
    }
    assert make().input_sizes == [(64, 96), (96, 32), (96, 64)]
    shapes = {b.images[0].shape for b in batches(fitting=Fitting())}
    assert shapes == {(2, 20, 33, 3), (2, 33, 20, 3), (2, 41, 17, 3)}


@pytest.mark.parametrize("alignment", ["resize", "pad"])
def test_images_are_fitted_once_for_each_ratio(alignment):
    fitting = Fitting((66, 40), (0.5, 1.5), 32, alignment)
    for batch in batches(fitting=fitting):
        number = int(batch.labels[0][0, 0])
        image = np.full((*SIZES[number], 3), 10 * number, np.uint8)
        for given, wanted in zip(batch.images, fitting.images(image), strict=True):
            np.testing.assert_array_equal(given[0], wanted)
        sizes = tuple(ratio[0] for ratio in batch.fitted_sizes)
        assert sizes == fitting.sizes(SIZES[number])


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_get_their_rows_of_the_same_global_batches(process_count):
    whole = batches(batch_size=4)
    parts = [
        batches(batch_size=4, process_index=i, process_count=process_count)
        for i in range(process_count)
    ]
    assert {len(part) for part in parts} == {len(whole)}
    for step, batch in enumerate(whole):
        local = [part[step] for part in parts]
        joined = np.concatenate([part.images[0] for part in local])
        np.testing.assert_array_equal(joined, batch.images[0])
        joined = np.concatenate([part.mask for part in local])
        np.testing.assert_array_equal(joined, batch.mask)
        assert batch.image_ids == sum((part.image_ids for part in local), ())
        assert [row for part in local for row in part.rows] == list(range(4))
        for part in local:
            assert part.image_sizes == batch.image_sizes
            assert part.fitted_sizes == batch.fitted_sizes


def test_split_may_be_read_again_without_asking_for_sizes():
    source = Mixed()
    given = make(source)
    first = [batch.image_ids for batch in given]
    num_reads = len(source.reads)
    assert [batch.image_ids for batch in given] == first
    assert len(source.reads) - num_reads == len(SIZES)


def test_examples_lie_evenly_where_a_number_is_given():
    names = {name for b in batches(max_examples=3) for name in b.image_ids}
    places = [(2 * i + 1) * len(SIZES) // 6 for i in range(3)]
    assert places[0] > 0 and names == {f"photo_{place}" for place in places}
    assert len(batches(max_examples=100)) == len(batches())


def test_reading_stays_one_batch_ahead():
    source = Mixed()
    iterator = iter(make(source, Fitting(), batch_size=1, num_threads=2))
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
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 3, "process_count": 2}, "3 examples and 2 processes. Use 2"),
        ({"process_index": 1}, r"\[0, 1\)"),
        ({"max_examples": 0}, "nothing to evaluate"),
    ],
)
def test_impossible_options_are_refused_before_reading(options, message):
    source = Mixed()
    with pytest.raises(ValueError, match=message):
        make(source, **options)
    assert not source.reads
