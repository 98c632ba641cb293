import cv2
import numpy as np
import pytest

from segnext_jax.images.decode import encode_label
from segnext_jax.pipeline.class_sampling import count_classes, example_probabilities

LABELS = [
    np.array([[0, 0, 2], [255, 0, 9]], np.uint8),
    np.array([[1, 1, 1], [1, 1, 255]], np.uint8),
    np.array([[0, 0, 0], [0, 0, 0]], np.uint8),
]
COUNTS = np.array([[3, 0, 1, 0], [0, 5, 0, 0], [6, 0, 0, 0]])


def test_pixels_are_counted_by_class_and_example():
    encoded = [
        {"image": b"", "label": encode_label(labels), "image_id": str(i)}
        for i, labels in enumerate(LABELS)
    ]
    np.testing.assert_array_equal(count_classes(encoded, 4), COUNTS)
    decoded = [{**e, "label": y} for e, y in zip(encoded, LABELS, strict=True)]
    np.testing.assert_array_equal(count_classes(decoded, 4), COUNTS)


def test_a_broken_label_map_is_named():
    broken = cv2.imencode(".png", LABELS[0])[1].tobytes()[:30]
    example = {"image": b"", "label": broken, "image_id": "a/b"}
    with pytest.raises(ValueError, match="^a/b: its label map cannot be decoded"):
        count_classes([example], 4)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_probabilities_are_those_of_a_class_and_then_an_image(temperature):
    frequency = {c: COUNTS[:, c].sum() / 15 for c in (0, 1, 2)}
    weight = {c: np.exp((1 - f) / temperature) for c, f in frequency.items()}
    expected = np.zeros(3)
    for c in weight:
        having = [i for i in range(3) if COUNTS[i, c]]
        for i in having:
            expected[i] += weight[c] / sum(weight.values()) / len(having)
    probabilities = example_probabilities(COUNTS, temperature)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-12)
    assert probabilities.sum() == pytest.approx(1, rel=1e-12)


def test_a_small_temperature_does_not_overflow():
    probabilities = example_probabilities(COUNTS, 1e-4)
    np.testing.assert_allclose(probabilities, [1, 0, 0], atol=1e-12)


def test_examples_without_any_class_are_refused():
    with pytest.raises(ValueError, match="no example has any"):
        example_probabilities(np.zeros((3, 4), int), 0.01)
