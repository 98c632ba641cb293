import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from segnext_jax.ops import resize
from segnext_jax.ops.resize import resize_bilinear


def statement(images, size):
    """Half-pixel centres, clamped to the image, no antialiasing, pixel by pixel."""
    _, height, width, _ = images.shape
    output = np.zeros((len(images), *size, images.shape[-1]))
    for i in range(size[0]):
        y = min(max((i + 0.5) * height / size[0] - 0.5, 0), height - 1)
        top, bottom = int(y), min(int(y) + 1, height - 1)
        for j in range(size[1]):
            x = min(max((j + 0.5) * width / size[1] - 0.5, 0), width - 1)
            left, right = int(x), min(int(x) + 1, width - 1)
            upper = images[:, top, left] * (1 - x % 1) + images[:, top, right] * (x % 1)
            lower = images[:, bottom, left] * (1 - x % 1) + images[:, bottom, right] * (
                x % 1
            )
            output[:, i, j] = upper * (1 - y % 1) + lower * (y % 1)
    return output


SIZES = [
    ((5, 8), (10, 16)),
    ((7, 11), (13, 21)),
    ((13, 6), (13, 24)),
    ((9, 14), (4, 5)),
    ((1, 3), (4, 7)),
    ((6, 5), (1, 1)),
    ((6, 5), (6, 5)),
]


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_equals_the_plain_statement(old, new):
    images = np.random.default_rng(0).standard_normal((2, *old, 3))
    with jax.enable_x64(True):
        given = resize_bilinear(jnp.asarray(images), new)
    assert given.shape == (2, *new, 3)
    np.testing.assert_allclose(given, statement(images, new), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), SIZES[1:5])
def test_value_and_gradient_equal_torch(old, new):
    torch = pytest.importorskip("torch", reason="compares with torch")
    generator = np.random.default_rng(0)
    images = generator.standard_normal((2, *old, 3))
    cotangent = generator.standard_normal((2, *new, 3))
    theirs = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    output = torch.nn.functional.interpolate(
        theirs, size=new, mode="bilinear", align_corners=False
    )
    output.backward(torch.tensor(cotangent.transpose(0, 3, 1, 2)))

    @jax.jit
    def both(images, cotangent):
        given, pull = jax.vjp(lambda images: resize_bilinear(images, new), images)
        return given, pull(cotangent)

    with jax.enable_x64(True):
        given, (gradient,) = both(images, cotangent)
    for ours, wanted in ((given, output.detach()), (gradient, theirs.grad)):
        wanted = wanted.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(ours, wanted, rtol=1e-12, atol=1e-12)


def test_type_is_kept():
    images = jnp.ones((1, 3, 4, 2), jnp.bfloat16)
    output = resize_bilinear(images, (7, 9))
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(output, np.float32), 1, rtol=2**-7)


def test_sizes_known_when_it_runs_give_the_same():
    def enlarge(images):
        _, height, width, _ = images.shape
        return resize_bilinear(images, (4 * height, 3 * width))

    shape = jax.export.symbolic_shape("2, h, w, 3")
    spec = jax.ShapeDtypeStruct(shape, jnp.float32)
    exported = jax.export.export(jax.jit(enlarge))(spec)
    for height, width in ((5, 7), (1, 2)):
        images = np.random.default_rng(0).normal(size=(2, height, width, 3))
        output = exported.call(images.astype(np.float32))
        wanted = statement(images, (4 * height, 3 * width))
        np.testing.assert_allclose(output, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("new", ["w", "2*h + 1"])
def test_sizes_known_when_it_runs_grow_by_whole_factors(new):
    height, other = jax.export.symbolic_shape(f"h, {new}")
    spec = jax.ShapeDtypeStruct((1, height, 4, 3), jnp.float32)
    with pytest.raises(ValueError, match="by a whole factor: got h to"):
        jax.eval_shape(lambda images: resize_bilinear(images, (other, 4)), spec)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_sums_for_gpus_and_their_transposition_equal_the_products(old, new):
    generator = np.random.default_rng(0)
    images, cotangent = (generator.standard_normal((2, *s, 3)) for s in (old, new))

    @jax.jit
    def both(images, cotangent):
        given = resize._by_sums(images, size=new, is_transposed=False)
        gradient = resize._by_sums(cotangent, size=old, is_transposed=True)
        wanted, pull = jax.vjp(lambda images: resize_bilinear(images, new), images)
        return given, gradient, wanted, *pull(cotangent)

    with jax.enable_x64(True):
        given, gradient, wanted, wanted_gradient = both(images, cotangent)
    # Weights are float32.
    np.testing.assert_allclose(given, wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-6, atol=1e-6)


def test_short_types_have_the_gradient_of_the_resize():
    images = np.arange(24, dtype=np.float32).reshape(1, 4, 3, 2)

    def total(images, dtype):
        output = resize_bilinear(images.astype(dtype), (8, 5))
        return jnp.sum(jnp.cos(output.astype(jnp.float32)))

    given, wanted = (
        jax.jit(jax.grad(total), static_argnums=1)(images, dtype)
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    # Values up to 24 are rounded to 1/16.
    np.testing.assert_allclose(given, wanted, atol=0.15)
