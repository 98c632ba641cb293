import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops import losses
from segnext_jax.ops.kernels import upsampled as kernels
from segnext_jax.ops.resize import resize_bilinear
from segnext_jax.ops.upsampled import (
    upsampled_cross_entropy,
    upsampled_labels,
    whole_factor,
)

IGNORE = 255


def case(factor=4, shape=(2, 3, 5, 7)):
    generator = np.random.default_rng(0)
    batch, height, width, classes = shape
    labels = generator.integers(0, classes, (batch, factor * height, factor * width))
    labels[generator.random(labels.shape) < 0.2] = IGNORE
    return generator.standard_normal(shape), jnp.asarray(labels.astype(np.uint8))


def enlarged(logits, labels):
    return resize_bilinear(jnp.asarray(logits), labels.shape[1:])


WEIGHTS = (0.5, 1.0, 2.0, 0.1, 1.0, 3.0, 1.0)


@pytest.mark.parametrize(
    ("factor", "options"),
    [
        (2, {}),
        (2, {"label_smoothing": 0.1}),
        (2, {"class_weights": WEIGHTS}),
        (8, {"label_smoothing": 0.3, "class_weights": WEIGHTS}),
    ],
    ids=["plain", "smoothing", "weights", "both"],
)
def test_loss_and_gradient_equal_those_of_enlarged_logits(factor, options):
    logits, labels = case(factor)

    def ours(logits):
        return 3 * upsampled_cross_entropy(logits, labels, **options).loss

    def wanted(logits):
        large = enlarged(logits, labels)
        loss = losses.cross_entropy(large, labels, divisor=jnp.ones(()), **options)
        return 3 * loss

    @jax.jit
    def all_three(logits):
        slopes = [jax.value_and_grad(loss)(logits) for loss in (ours, wanted)]
        return *slopes, ours(logits)

    with jax.enable_x64(True):
        given, expected, loss = all_three(logits)
    # Without a gradient the loop is another one.
    np.testing.assert_allclose(loss, expected[0], rtol=1e-12)
    for array, expected_array in zip(given, expected, strict=True):
        np.testing.assert_allclose(array, expected_array, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("factor", "classes", "smoothing"), [(2, 5, 0.3), (4, 150, 0.0), (4, 150, 0.3)]
)
def test_the_kernel_has_the_same_loss_hits_and_gradient(factor, classes, smoothing):
    # More columns than a program has cells, where there are many classes.
    logits, labels = case(factor, (2, 3, 9, classes))
    weights = np.linspace(0.1, 2, classes)

    def wanted(logits):
        sums = upsampled_cross_entropy(
            logits,
            labels,
            class_weights=tuple(weights),
            label_smoothing=smoothing,
        )
        return sums.loss, sums.hits

    rule = kernels.Rule(factor, IGNORE, smoothing)
    function = functools.partial(kernels.loss_and_gradient, rule=rule, interpret=True)
    with jax.enable_x64(True):
        loss, hits, gradient = jax.jit(function)(logits, labels, weights)
        (expected, expected_hits), slope = jax.jit(
            jax.value_and_grad(wanted, has_aux=True)
        )(logits)
    np.testing.assert_allclose(np.asarray(loss).sum(), expected, rtol=1e-12)
    assert np.asarray(hits).sum() == int(expected_hits) > 0
    np.testing.assert_allclose(gradient, slope, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("classes", [5, 150])
def test_the_kernel_finds_the_same_labels(classes):
    logits = np.round(2 * case(4, (2, 3, 9, classes))[0]).astype(np.float32)
    # Many scores are equal; one logit is nan.
    logits[1, 2, 3, 1] = np.nan
    logits = jnp.asarray(logits)
    function = functools.partial(kernels.best_labels, factor=4, interpret=True)
    given = jax.jit(function)(logits)
    np.testing.assert_array_equal(given, upsampled_labels(logits, 4))
    assert (np.asarray(given) == classes).any()


def test_second_derivatives_equal_those_of_enlarged_logits():
    logits, labels = case(2, (1, 2, 3, 4))
    direction = np.cos(np.arange(logits.size)).reshape(logits.shape)

    def slope_of(loss):
        return jax.jit(jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), direction)))

    def ours(logits):
        return jnp.sin(upsampled_cross_entropy(logits, labels).loss)

    def wanted(logits):
        large = enlarged(logits, labels)
        return jnp.sin(losses.cross_entropy(large, labels, divisor=jnp.ones(())))

    with jax.enable_x64(True):
        given, expected = slope_of(ours)(logits), slope_of(wanted)(logits)
    np.testing.assert_allclose(given, expected, rtol=1e-9, atol=1e-10)


def test_hits_are_the_pixels_of_the_best_class():
    logits, labels = case()
    best = np.argmax(enlarged(np.float32(logits), labels), axis=-1)
    sums = upsampled_cross_entropy(jnp.asarray(logits, jnp.float32), labels)
    assert int(sums.hits) == np.sum((best == labels) & (labels != IGNORE))
    assert 0 < int(sums.hits) < labels.size


def test_the_first_of_equal_scores_is_the_hit():
    logits = jnp.asarray([0.0, 1, 1, 1, 0])[None, None, None] * jnp.ones((1, 2, 2, 1))
    # The last is no class at all.
    for label, is_hit in ((0, 0), (1, 1), (2, 0), (3, 0), (4, 0), (77, 0)):
        labels = jnp.full((1, 4, 4), label, jnp.uint8)
        assert int(upsampled_cross_entropy(logits, labels).hits) == 16 * is_hit


def test_large_scores_do_not_overflow():
    labels = jnp.zeros((1, 4, 4), jnp.uint8)
    logits = jnp.full((1, 2, 2, 3), -1e4).at[..., 0].set(1e4)
    sums = upsampled_cross_entropy(logits, labels)
    assert (float(sums.loss), int(sums.hits)) == (0.0, 16)


def test_a_batch_without_labels_has_loss_and_gradient_zero():
    labels = jnp.full((2, 6, 10), IGNORE, jnp.uint8)
    logits = jnp.asarray(case()[0], jnp.float32)
    loss, gradient = jax.jit(
        jax.value_and_grad(lambda x: upsampled_cross_entropy(x, labels).loss)
    )(logits)
    assert float(loss) == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_bfloat16_logits_are_computed_in_float32():
    logits, labels = case()
    short = jnp.asarray(logits, jnp.bfloat16)
    given = upsampled_cross_entropy(short, labels).loss
    wanted = upsampled_cross_entropy(short.astype(jnp.float32), labels).loss
    assert given == wanted and given.dtype == jnp.float32


def test_devices_exchange_nothing_inside_the_loops():
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    by_image = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    logits, labels = case(2, (8, 3, 5, 4))

    def loss(logits, labels):
        return upsampled_cross_entropy(logits, labels).loss

    function = jax.jit(
        jax.value_and_grad(loss),
        in_shardings=by_image,
        out_shardings=(None, by_image),
    )
    arguments = jnp.asarray(logits, jnp.float32), labels
    program = function.lower(*arguments).compile().as_text()
    exchanges = [
        line
        for line in program.splitlines()
        if any(f" {name}(" in line for name in ("all-reduce", "all-gather"))
    ]
    assert len(exchanges) == 1 and "f32[]" in exchanges[0]
    wanted = jax.jit(jax.value_and_grad(loss))(*arguments)
    for ours, theirs in zip(function(*arguments), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_labels_are_the_best_classes_of_enlarged_logits(factor):
    logits, labels = case(factor)
    with jax.enable_x64(True):
        given = upsampled_labels(jnp.asarray(logits), factor)
        wanted = jnp.argmax(enlarged(logits, labels), axis=-1)
    assert given.dtype == jnp.uint8
    np.testing.assert_array_equal(given, wanted)


def test_the_first_of_equal_classes_is_taken_and_nan_is_none():
    scores = jnp.asarray([[[[0.0, 1.0, 1.0]]], [[[jnp.nan, 1.0, 0.0]]]])
    labels = upsampled_labels(scores, 2)
    np.testing.assert_array_equal(labels[0], np.ones((2, 2)))
    np.testing.assert_array_equal(labels[1], np.full((2, 2), 3))


def test_factors():
    assert whole_factor((3, 5), (24, 40)) == 8
    assert whole_factor((3, 5), (9, 15)) is None
    assert whole_factor((3, 5), (24, 39)) is None
    assert whole_factor((3, 5), (3, 5)) is None


def test_sizes_without_a_factor_are_refused():
    logits = jnp.zeros((1, 3, 5, 2))
    with pytest.raises(ValueError, match="larger than the logits by one even factor"):
        upsampled_cross_entropy(logits, jnp.zeros((1, 9, 15), jnp.uint8))
    with pytest.raises(ValueError, match="the factor must be even: got 3"):
        upsampled_labels(logits, 3)
