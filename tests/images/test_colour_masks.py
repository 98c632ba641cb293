import numpy as np
import pytest

from segnext_jax.datasets import get_spec
from segnext_jax.images.colour_masks import colours_to_ids

COLOURS = ((0, 0, 0), (255, 0, 1), (1, 0, 255), (3, 2, 1))


def painted(ids, colours):
    return np.array(colours, np.uint8)[ids]


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (1030, 1025)])
def test_painting_and_reading_back_gives_the_ids(size):
    colours = get_spec("isaid").colours
    ids = np.random.default_rng(0).integers(0, len(colours), size)
    np.testing.assert_array_equal(
        colours_to_ids(painted(ids, colours), colours, "m"), ids
    )


def test_ids_may_be_given_and_shared():
    mask = painted(np.array([[0, 1], [2, 3]]), COLOURS)
    labels = colours_to_ids(mask, COLOURS, "m", ids=(255, 7, 7, 0))
    np.testing.assert_array_equal(labels, [[255, 7], [7, 0]])
    # Twice in the table, with one id: no contradiction.
    again = colours_to_ids(mask, (*COLOURS, (3, 2, 1)), "m", ids=(255, 7, 7, 0, 0))
    np.testing.assert_array_equal(again, labels)


@pytest.mark.parametrize("row", [0, 1500])
def test_an_unknown_colour_is_named_with_its_file_and_place(row):
    mask = np.zeros((1501, 800, 3), np.uint8)
    mask[row, 17] = (1, 2, 3)
    with pytest.raises(
        ValueError, match=rf"^a/b\.png: .*found \(1, 2, 3\) at row {row}, column 17\. "
    ):
        colours_to_ids(mask, COLOURS, "a/b.png")


@pytest.mark.parametrize(
    ("colours", "ids", "message"),
    [
        (COLOURS, (0, 1, 2), "4 colours and ids"),
        (COLOURS, (0, 1, 2, 256), r"\[0, 255\]"),
        ((*COLOURS, (0, 0, 0)), None, r"\(0, 0, 0\) has 0 and 4"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(colours, ids, message):
    with pytest.raises(ValueError, match=message):
        colours_to_ids(np.zeros((2, 3, 3), np.uint8), colours, "m", ids)
