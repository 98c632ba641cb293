"""Cross-entropy against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops.losses import cross_entropy


def example(dtype=np.float64):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 5, 7, 4)).astype(dtype)
    labels = rng.integers(0, 4, (2, 5, 7)).astype(np.uint8)
    labels[0, :2] = 255
    return logits, labels


def by_hand(logits, labels, average):
    total, count = 0.0, 0
    for scores, label in zip(logits.reshape(-1, 4), labels.ravel(), strict=True):
        if label != 255:
            total -= np.log(np.exp(scores[label]) / np.exp(scores).sum())
            count += 1
    return total / (labels.size if average == "all" else count)


@pytest.mark.parametrize("average", ["all", "valid"])
def test_equals_formula(average):
    with jax.enable_x64(True):
        logits, labels = example()
        loss = cross_entropy(jnp.asarray(logits), jnp.asarray(labels), average=average)
        assert float(loss) == pytest.approx(by_hand(logits, labels, average), rel=1e-13)


def test_gradient_is_softmax_minus_one_hot_and_zero_where_ignored():
    with jax.enable_x64(True):
        logits, labels = map(jnp.asarray, example())
        gradient = jax.grad(lambda x: cross_entropy(x, labels))(logits)
        expected = jax.nn.softmax(logits) - jax.nn.one_hot(labels, 4)
        expected = expected * (labels != 255)[..., None] / labels.size
        np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-16)


def test_large_logits_and_bfloat16_stay_finite_and_float32():
    logits = jnp.asarray(example()[0] * 1e4, jnp.bfloat16)
    loss = cross_entropy(logits, jnp.asarray(example()[1]))
    assert loss.dtype == jnp.float32
    assert jnp.isfinite(loss)


def test_no_labelled_pixel_gives_zero():
    logits = jnp.ones((1, 3, 5, 4))
    labels = jnp.full((1, 3, 5), 255, jnp.uint8)
    assert float(cross_entropy(logits, labels, average="valid")) == 0.0


def test_unknown_average_is_refused():
    logits, labels = map(jnp.asarray, example(np.float32))
    with pytest.raises(ValueError, match="'all' or 'valid': got 'some'"):
        cross_entropy(logits, labels, average="some")
