import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from segnext_jax.convert.merging import merge
from segnext_jax.convert.weights import from_state_dict
from segnext_jax.models.segnext import Variant

SMALL = Variant((8, 16, 24, 40), (1, 2, 1, 1), (3, 2, 2, 1), 0.0, 32, 5)
WIDE = Variant((8, 16, 24, 48), (1, 2, 1, 1), (3, 2, 2, 1), 0.0, 32, 5)


@pytest.fixture
def make_variables(make_state_dict):
    def make(kind="segmentation", num_classes=5, seed=1, variant=SMALL):
        given = make_state_dict(variant, num_classes, kind, seed=seed)
        return from_state_dict(given, variant=variant).variables

    return make


def origin(merged, initial, loaded):
    """Which of two trees each array was taken from, by module of the network."""
    initial, loaded = flatten_dict(initial), flatten_dict(loaded)
    origins = {}
    for path, value in flatten_dict(merged).items():
        is_loaded = path in loaded and np.array_equal(value, loaded[path])
        assert is_loaded or np.array_equal(value, initial[path])
        origins.setdefault(path[1:3] if path[1] != "head" else ("head",), set()).add(
            "loaded" if is_loaded else "initial"
        )
    return origins


def test_whole_network_is_taken(make_variables):
    initial, loaded = make_variables(seed=1), make_variables(seed=2)
    merged, summary = merge(initial, loaded)
    assert set.union(*origin(merged, initial, loaded).values()) == {"loaded"}
    assert len(summary.loaded) == len(flatten_dict(initial))
    assert not (summary.missing or summary.unexpected or summary.reshaped)


@pytest.mark.parametrize("kind", ["backbone", "classifier"])
def test_encoder_is_taken_and_decoder_left_fresh(kind, make_variables):
    initial, loaded = make_variables(seed=1), make_variables(kind, seed=2)
    merged, summary = merge(initial, loaded)
    for module, taken in origin(merged, initial, loaded).items():
        is_encoder = module[0] == "backbone"
        assert taken == ({"loaded"} if is_encoder else {"initial"}), module
    assert len(summary.missing) == 13
    assert all(name.startswith("decode_head.") for name in summary.missing)
    heads = ("head.kernel", "head.bias") if kind == "classifier" else ()
    assert set(summary.unexpected) == set(heads)


@pytest.mark.parametrize("kind", ["segmentation", "classifier"])
def test_last_layer_for_other_classes_is_left_fresh(kind, make_variables):
    initial = make_variables(kind, num_classes=5, seed=1)
    loaded = make_variables(kind, num_classes=9, seed=2)
    merged, summary = merge(initial, loaded)
    fresh = {
        module
        for module, taken in origin(merged, initial, loaded).items()
        if "initial" in taken
    }
    last = ("decode_head", "conv_seg") if kind == "segmentation" else ("head",)
    assert fresh == {last}
    assert [item.needed for item in summary.reshaped] == (
        [(32, 5), (5,)] if kind == "segmentation" else [(40, 5), (5,)]
    )


def test_types_are_those_of_the_network(make_variables):
    initial = make_variables()
    initial["params"]["decode_head"]["conv_seg"]["bias"] = np.zeros(5, np.float64)
    merged, _ = merge(initial, make_variables(seed=2))
    assert merged["params"]["decode_head"]["conv_seg"]["bias"].dtype == np.float64


def test_other_sizes_are_an_error_that_names_the_first(make_variables):
    with pytest.raises(
        ValueError,
        match=r"first backbone.patch_embed4.proj.kernel \[3, 3, 24, 48\] \(needed "
        r"\[3, 3, 24, 40\]\)",
    ):
        merge(make_variables(), make_variables(variant=WIDE))


def test_published_variants_are_named(make_state_dict):
    small, base = (
        from_state_dict(make_state_dict(name)).variables for name in ("small", "base")
    )
    with pytest.raises(ValueError, match="The network is small, the checkpoint base"):
        merge(small, base)


def test_incomplete_encoder_is_an_error_unless_not_strict(make_variables):
    loaded = make_variables("backbone")
    del loaded["params"]["backbone"]["block2_1"]["layer_scale_1"]
    with pytest.raises(
        ValueError, match=r"missing are backbone.block2_1.layer_scale_1"
    ):
        merge(make_variables(), loaded)
    _, summary = merge(make_variables(), loaded, strict=False)
    assert "backbone.block2_1.layer_scale_1" in summary.missing


def test_surplus_in_encoder_is_an_error(make_variables):
    loaded = make_variables("backbone")
    loaded["params"]["backbone"]["extra"] = {"kernel": np.zeros((2, 3))}
    with pytest.raises(ValueError, match="too many are backbone.extra.kernel"):
        merge(make_variables(), loaded)


@pytest.mark.parametrize("strict", [True, False])
def test_no_match_is_always_an_error(strict, make_variables):
    with pytest.raises(
        ValueError, match=r"no array matches; got dense.kernel \[2, 3\]"
    ):
        loaded = {"params": {"dense": {"kernel": np.zeros((2, 3))}}}
        merge(make_variables(), loaded, strict=strict)
