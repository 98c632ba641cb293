import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from segnext_jax.convert.names import entries, to_dialect, to_flax, to_torch
from segnext_jax.models.classifier import MSCANClassifier
from segnext_jax.models.segnext import VARIANTS, SegNeXt, Variant

# Every size differs from every other, so that no axis can stand for another.
SMALL = Variant((8, 16, 24, 40), (1, 2, 1, 1), (3, 2, 2, 1), 0.0, 32, 5)


def count(variant, num_classes, kind="segmentation"):
    return sum(
        math.prod(entry.shape)
        for entry in entries(VARIANTS[variant], num_classes, kind)
        if entry.path is not None and entry.path[0] == "params"
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_shapes_and_order_are_the_official(variant, reference):
    text = (reference / f"params_{variant}.json").read_text()
    wanted = [(e["name"], tuple(e["shape"])) for e in json.loads(text)["entries"]]
    given = [(e.official, e.shape) for e in entries(VARIANTS[variant], 150)]
    assert given == wanted


@pytest.mark.parametrize(
    ("variant", "num_classes", "kind", "published"),
    [
        ("tiny", 150, "segmentation", 4_263_414),
        ("small", 150, "segmentation", 13_932_886),
        ("base", 150, "segmentation", 27_636_310),
        ("large", 150, "segmentation", 48_926_550),
        ("tiny", 19, "segmentation", 4_229_747),
        ("large", 171, "segmentation", 48_948_075),
        ("small", None, "backbone", 13_450_176),
        ("tiny", 1000, "classifier", 4_160_584),
        ("small", 1000, "classifier", 13_963_176),
        ("base", 1000, "classifier", 26_790_824),
        ("large", 1000, "classifier", 45_149_864),
    ],
)
def test_number_of_parameters_is_the_published(variant, num_classes, kind, published):
    assert count(variant, num_classes, kind) == published


@pytest.mark.parametrize(
    ("module", "kind"), [(SegNeXt, "segmentation"), (MSCANClassifier, "classifier")]
)
def test_paths_and_shapes_are_those_of_the_flax_network(module, kind):
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: module(SMALL, 7).init(jax.random.key(0), images))
    wanted = {path: leaf.shape for path, leaf in flatten_dict(variables).items()}
    given = {
        entry.path: to_flax(np.zeros(entry.shape), entry.layout).shape
        for entry in entries(SMALL, 7, kind)
        if entry.path is not None
    }
    assert given == wanted


@pytest.mark.parametrize(
    ("layout", "shape", "axes"),
    [
        ("conv", (2, 3, 4, 5), "oihw->hwio"),
        ("pointwise", (2, 3, 1, 1), "oihw->io"),
        ("depthwise", (2, 1, 4, 5), "cihw->hwc"),
        ("linear", (2, 3), "oi->io"),
        ("vector", (2,), "c->c"),
    ],
)
def test_layout_moves_axes_as_documented_and_back(layout, shape, axes):
    value = np.random.default_rng(0).standard_normal(shape)
    flax = to_flax(value, layout)
    np.testing.assert_array_equal(flax, np.einsum(axes, value), strict=True)
    np.testing.assert_array_equal(to_torch(flax, layout), value, strict=True)


def test_dialects_differ_in_the_names_known_to_differ():
    name = "backbone.block1.0.mlp.dwconv.dwconv.weight"
    assert to_dialect(name, "official") == name
    assert to_dialect(name, "jseg") == name
    assert to_dialect(name, "mmseg1") == "backbone.block1.0.mlp.dwconv.weight"
    assert to_dialect(name, "official", "backbone") == name.removeprefix("backbone.")
