import numpy as np
import pytest

from segnext_jax.datasets import SPECS, DatasetSpec
from segnext_jax.images import pictures
from segnext_jax.training import browse, find_lr

RNG = np.random.default_rng(0)
COLOURS = ((10, 20, 30), (200, 100, 0), (0, 0, 255))
SPEC = DatasetSpec("tiny", ("a", "b", "c"), COLOURS)
IMAGE = RNG.integers(0, 256, (37, 53, 3), np.uint8)
LABELS = RNG.integers(0, 3, (37, 53), np.uint8)


def test_a_contact_sheet_has_a_cell_per_image_and_one_legend():
    spec = DatasetSpec("pair", ("a", "b"), ((200, 0, 0), (0, 0, 200)))
    image = np.full((30, 60, 3), 100, np.uint8)
    labels = np.zeros((30, 60), np.uint8)
    labels[:, 30:] = 1
    present = np.zeros(256, bool)
    present[:2] = True
    cells = [(f"very long path to image number {k}", image, labels) for k in range(4)]
    sheet = pictures.contact_sheet(cells, spec, (20, 50), present)
    # A panel holds the image at 40x20 in 50x20; rows and columns of cells are apart by
    # 8 pixels, captions take 22.
    assert sheet.shape[1] == 3 * (2 * 50 + 3 * 8)
    for row, column in ((0, 0), (0, 2), (1, 0)):
        top, left = row * 50 + 22, column * 124 + 8
        assert (sheet[top : top + 20, left : left + 40] == 100).all()
        tinted = sheet[top : top + 20, left + 58 : left + 98]
        # 0.4 of the image and 0.6 of the colour.
        assert (tinted[:, :20] == (160, 40, 40)).all()
        assert (tinted[:, 20:] == (40, 40, 160)).all()
    assert (sheet[50 + 22 : 92, 124:] == 255).all()
    present[255] = True
    taller = pictures.contact_sheet(cells, spec, (20, 50), present)
    assert taller.shape[1] == sheet.shape[1]
    assert (taller[100:] != 255).sum() > (sheet[100:] != 255).sum()


def test_labels_get_their_colours_and_other_ids_are_black():
    labels = LABELS.copy()
    labels[:3] = 255
    labels[3] = 3
    picture = pictures.colour_labels(labels, COLOURS)
    for label, colour in enumerate(COLOURS):
        assert (picture[labels == label] == colour).all()
    assert (picture[:4] == 0).all()


def test_opacity_weighs_image_and_colour():
    for opacity in (0.0, 0.25, 1.0):
        expected = (1 - opacity) * IMAGE + opacity * np.array(COLOURS)[LABELS]
        picture = pictures.overlay(IMAGE, LABELS, COLOURS, opacity)
        assert np.abs(picture - expected).max() <= 0.5 + 1e-6


def test_ignored_pixels_are_hatched_and_never_tinted():
    labels = LABELS.copy()
    labels[10:30] = 255
    picture = pictures.overlay(IMAGE, labels, COLOURS)
    is_kept = (picture == IMAGE).all(-1)
    share = is_kept[10:30].mean()
    assert 0.7 < share < 0.8
    assert (picture[10:30] >= IMAGE[10:30] // 2).all()
    np.testing.assert_array_equal(
        picture[:10], pictures.overlay(IMAGE, LABELS, COLOURS)[:10]
    )


def test_inputs_are_left_alone():
    image, labels = IMAGE.copy(), LABELS.copy()
    labels[0, 0] = 255
    before = labels.copy()
    pictures.side_by_side(image, labels, labels, SPEC)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(labels, before)


def test_sizes_and_opacity_are_checked():
    with pytest.raises(ValueError, match=r"\(37, 53\) and \(36, 53\)"):
        pictures.overlay(IMAGE, LABELS[1:], COLOURS)
    with pytest.raises(ValueError, match=r"opacity must lie in \[0, 1\]: got 2.0"):
        pictures.overlay(IMAGE, LABELS, COLOURS, 2.0)


@pytest.mark.parametrize("width", [1, 60, 500])
def test_a_legend_shows_every_colour_where_it_is_wide_enough(width):
    spec = SPECS["cityscapes"]
    picture = pictures.legend(spec.classes, spec.colours, width)
    assert picture.shape[1] == width and picture.dtype == np.uint8
    shown = set(map(tuple, picture.reshape(-1, 3).tolist()))
    assert (set(spec.colours) <= shown) == (width > 1)


def test_side_by_side_shows_three_panels_and_only_the_classes_present():
    truth = np.zeros((37, 53), np.uint8)
    prediction = np.full((37, 53), 2, np.uint8)
    picture = pictures.side_by_side(IMAGE, truth, prediction, SPEC, opacity=1.0)
    factor = 7  # 37 pixels are enlarged to at least 240.
    width = 53 * factor
    assert picture.shape[1] == 3 * width + 2 * 8
    panels = picture[22 : 22 + 37 * factor]
    np.testing.assert_array_equal(panels[::factor, :width:factor], IMAGE)
    assert (panels[:, width + 8 : 2 * width + 8] == COLOURS[0]).all()
    assert (panels[:, 2 * width + 16 :] == COLOURS[2]).all()
    legend = picture[22 + 37 * factor :].reshape(-1, 3)
    colours = set(map(tuple, legend.tolist()))
    assert COLOURS[0] in colours and COLOURS[2] in colours
    assert COLOURS[1] not in colours


def test_side_by_side_leaves_large_images_at_their_size():
    image = RNG.integers(0, 256, (250, 310, 3), np.uint8)
    labels = np.full((250, 310), 255, np.uint8)
    picture = pictures.side_by_side(image, labels, labels, SPEC)
    np.testing.assert_array_equal(picture[22:272, :310], image)


def test_without_truth_the_legend_names_shares_largest_first():
    prediction = np.zeros((250, 310), np.uint8)
    prediction[:200] = 2
    image = np.full((250, 310, 3), 128, np.uint8)
    picture = pictures.side_by_side(image, None, prediction, SPEC, opacity=1.0)
    assert picture.shape[1] == 2 * 310 + 8
    np.testing.assert_array_equal(picture[22:272, :310], image)
    assert (picture[22:222, 318:] == COLOURS[2]).all()
    expected = pictures.legend(["c 80.0%", "a 20.0%"], [COLOURS[2], COLOURS[0]], 628)
    np.testing.assert_array_equal(picture[272:], expected)


def test_pictures_of_one_size_can_have_one_size():
    labels = np.zeros((2, 250, 310), np.uint8)
    labels[1] = RNG.integers(0, 19, (250, 310), np.uint8)
    image = np.zeros((250, 310, 3), np.uint8)
    spec = SPECS["cityscapes"]
    sizes = {
        pictures.side_by_side(image, None, ids, spec, all_classes=True).shape
        for ids in labels
    }
    assert len(sizes) == 1


def test_a_legend_hatches_what_has_no_colour_and_knows_umlauts():
    plain, hatched = (
        pictures.legend(["x"], [colour], 200) for colour in ((128, 128, 128), None)
    )
    assert (plain != hatched).any()
    assert (plain == hatched).mean() > 0.9
    names = ["Straße", "Strase"]
    one, other = (pictures.legend([name], [(0, 0, 0)], 200) for name in names)
    assert (one != other).any()


def test_hatching_is_seen_on_white_and_on_black():
    for value in (0, 255):
        image = np.full((16, 16, 3), value, np.uint8)
        picture = pictures.overlay(image, np.full((16, 16), 255, np.uint8), COLOURS)
        assert np.abs(picture.astype(int) - value).max() >= 127


def test_thin_images_are_not_enlarged_beyond_measure():
    image = np.zeros((1, 5000, 3), np.uint8)
    picture = pictures.side_by_side(image, None, image[..., 0], SPEC)
    assert picture.shape[1] == 2 * 5000 + 8


@pytest.mark.parametrize("count", [3, 60])
def test_picture_is_dark_where_all_pixels_are_and_white_where_none_is(count):
    confusion = np.diag(np.full(count, 7))
    confusion[1] = 0
    names = [f"class number {i}" for i in range(count)]
    picture = pictures.draw_confusion(confusion, names)
    cell = 38 if count == 3 else 15
    bottom, right = picture.shape[0] - 12, picture.shape[1] - 12
    corner = picture[bottom - cell + 3, right - cell + 3]
    assert corner.tolist() == [8, 48, 107]
    assert picture[bottom - cell + 3, right - 2 * cell + 3].tolist() == [255] * 3
    # The row of the class without labels is crossed out.
    middle = bottom - count * cell + cell + cell // 2
    assert picture[middle, right - cell + 3].tolist() == [150] * 3


def test_names_of_any_script_have_letters_of_their_own():
    """What a font lacks looks like what another name lacks."""
    names = ("straße", "strabe", "道路", "水面", "дорога", "природа")
    drawn = [pictures.legend([name], [(0, 0, 0)], 200) for name in names]
    for first, second in zip(drawn[::2], drawn[1::2], strict=True):
        assert (first != second).any()
    assert (drawn[2] != pictures.legend(["??"], [(0, 0, 0)], 200)).any()


@pytest.mark.parametrize("name", ["sheet", "sheet.txt"])
@pytest.mark.parametrize("command", [browse, find_lr])
def test_a_picture_of_another_suffix_is_refused_before_the_work(name, command):
    # Nothing is prepared, so that the work would end in another error.
    arguments = ["--config=shapes_tiny", "--config.data.data_dir=none"]
    with pytest.raises(ValueError, match=f"got out/{name}. Use out/{name}.png."):
        command.main([*arguments, f"--output=out/{name}"])
