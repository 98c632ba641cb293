import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from segnext_jax.convert.names import HAS_BATCH_COUNT
from segnext_jax.convert.weights import from_state_dict, to_state_dict
from segnext_jax.models.segnext import VARIANTS, Variant

SMALL = Variant((8, 16, 24, 40), (1, 2, 1, 1), (3, 2, 2, 1), 0.0, 32, 5)


# Of the larger networks one dialect by default: the others have the same arrays.
@pytest.mark.parametrize(
    ("variant", "dialect"),
    [
        pytest.param(
            variant,
            dialect,
            marks=[pytest.mark.slow] * (variant != "tiny" and dialect != "official"),
        )
        for variant in VARIANTS
        for dialect in HAS_BATCH_COUNT
    ],
)
def test_round_trip_is_bit_equal(variant, dialect, make_state_dict, assert_equal):
    given = make_state_dict(variant, 19, dialect=dialect)
    converted = from_state_dict(given)
    assert converted.source.variant_name == variant
    assert converted.source.dialect == dialect
    assert converted.source.num_classes == 19
    assert not converted.summary.missing
    assert not converted.summary.unexpected
    assert not converted.summary.reshaped
    assert_equal(to_state_dict(converted.variables, dialect), given)


@pytest.mark.parametrize("kind", ["backbone", "classifier"])
@pytest.mark.parametrize("dialect", HAS_BATCH_COUNT)
def test_round_trip_of_encoder_is_bit_equal(
    kind, dialect, make_state_dict, assert_equal
):
    given = make_state_dict("tiny", 1000, kind, dialect)
    converted = from_state_dict(given)
    assert converted.source.kind == kind
    assert set(converted.variables["params"]) == (
        {"backbone"} if kind == "backbone" else {"backbone", "head"}
    )
    assert_equal(to_state_dict(converted.variables, dialect), given)


def test_dialects_give_the_same_variables(make_state_dict):
    flats = [
        flatten_dict(from_state_dict(make_state_dict(dialect=dialect)).variables)
        for dialect in HAS_BATCH_COUNT
    ]
    for flat in flats[1:]:
        assert set(flat) == set(flats[0])
        for path, value in flat.items():
            np.testing.assert_array_equal(value, flats[0][path], strict=True)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: {"state_dict": d, "meta": {"epoch": 3}, "optimizer": {"state": {}}},
        lambda d: {"model": d, "iter": np.int64(7)},
        lambda d: {"model": {"state_dict": d}},
        lambda d: {f"module.{name}": value for name, value in d.items()},
        lambda d: {"state_dict": {f"module._orig_mod.{n}": v for n, v in d.items()}},
    ],
)
def test_wrappers_and_prefixes_are_seen_through(wrap, make_state_dict, assert_equal):
    given = make_state_dict(num_classes=3)
    assert_equal(to_state_dict(from_state_dict(wrap(given)).variables), given)


def test_values_become_float32(make_state_dict):
    given = {
        name: value.astype(np.float16 if "block1" in name else np.float64)
        for name, value in make_state_dict().items()
    }
    for value in flatten_dict(from_state_dict(given).variables).values():
        assert value.dtype == np.float32


def test_batch_counts_are_exported_as_zero_integers(make_state_dict):
    given = make_state_dict()
    given["backbone.block1.0.norm1.num_batches_tracked"] = np.array(160_000)
    exported = to_state_dict(from_state_dict(given).variables)
    count = exported["backbone.block1.0.norm1.num_batches_tracked"]
    assert count.dtype == np.int64
    assert count.shape == ()
    assert count == 0
    assert sum(name.endswith("num_batches_tracked") for name in exported) == 31


def test_jax_arrays_of_bfloat16_are_exported_as_float32(make_state_dict):
    variables = from_state_dict(make_state_dict(SMALL), variant=SMALL).variables
    kernel = variables["params"]["decode_head"]["conv_seg"]["kernel"]
    rounded = jnp.asarray(kernel, jnp.bfloat16)
    variables["params"]["decode_head"]["conv_seg"]["kernel"] = rounded
    exported = to_state_dict(variables)["decode_head.conv_seg.weight"]
    assert exported.dtype == np.float32
    np.testing.assert_array_equal(exported[:, :, 0, 0], rounded.astype(np.float32).T)


@pytest.mark.parametrize("depths", [SMALL.depths, (1, 0, 0, 1), (0, 0, 0, 0)])
def test_own_sizes_are_converted_when_asked_for(make_state_dict, assert_equal, depths):
    variant = dataclasses.replace(SMALL, depths=depths)
    given = make_state_dict(variant, 5)
    with pytest.raises(ValueError, match="of a published network|all stages of the"):
        from_state_dict(given)
    converted = from_state_dict(given, variant=variant)
    assert converted.source.variant_name is None
    assert converted.source.variant.depths == depths
    assert_equal(to_state_dict(converted.variables), given)


def test_rank_follows_the_configs_of_the_dialect(make_state_dict):
    ranks = {
        (variant, dialect): from_state_dict(
            make_state_dict(variant, dialect=dialect)
        ).source.variant.rank
        for variant in ("tiny", "base")
        for dialect in ("official", "mmseg1")
    }
    assert ranks == {
        ("tiny", "official"): 16,
        ("tiny", "mmseg1"): 16,
        ("base", "official"): 64,
        ("base", "mmseg1"): 16,
    }


def test_head_of_other_classes_is_left_out_when_not_strict(make_state_dict):
    given = make_state_dict(num_classes=150)
    with pytest.raises(
        ValueError, match=r"conv_seg.weight \[150, 256, 1, 1\] \(needed"
    ):
        from_state_dict(given, num_classes=19)
    converted = from_state_dict(given, num_classes=19, strict=False)
    assert "conv_seg" not in converted.variables["params"]["decode_head"]
    assert [str(item) for item in converted.summary.reshaped] == [
        "decode_head.conv_seg.weight [150, 256, 1, 1] (needed [19, 256, 1, 1])",
        "decode_head.conv_seg.bias [150] (needed [19])",
    ]
    assert len(converted.summary.loaded) == 517


def test_missing_and_unexpected_arrays_are_errors_unless_not_strict(make_state_dict):
    given = make_state_dict()
    del given["backbone.block2.1.attn.proj_1.weight"]
    with pytest.raises(
        ValueError, match=r"missing are backbone.block2.1.attn.proj_1.weight \[64, 64"
    ):
        from_state_dict(given)
    given["auxiliary_head.weight"] = np.zeros((2, 3))
    summary = from_state_dict(given, strict=False).summary
    assert summary.missing == ("backbone.block2.1.attn.proj_1.weight",)
    assert summary.unexpected == ("auxiliary_head.weight",)
    assert str(summary).splitlines() == [
        "loaded 518 arrays (backbone 505, decode_head 13)",
        "missing, left fresh: 1 (backbone.block2.1.attn.proj_1.weight)",
        "unexpected, not used: 1 (auxiliary_head.weight)",
    ]
    given = {**make_state_dict(), "auxiliary_head.weight": np.zeros((2, 3))}
    with pytest.raises(ValueError, match=r"auxiliary_head.weight \[2, 3\] are not"):
        from_state_dict(given)


@pytest.mark.parametrize("strict", [True, False])
def test_checkpoint_of_another_network_is_always_an_error(strict):
    resnet = {
        "conv1.weight": np.zeros((64, 3, 7, 7)),
        "layer1.0.conv1.weight": np.zeros((64, 64, 1, 1)),
    }
    with pytest.raises(ValueError, match=r"none matches; got conv1.weight \[64, 3, 7"):
        from_state_dict(resnet, strict=strict)
    with pytest.raises(ValueError, match="look like a ResNet"):
        from_state_dict({"state_dict": resnet}, strict=strict)


def test_checkpoint_without_arrays_is_an_error():
    with pytest.raises(ValueError, match="must hold arrays by name"):
        from_state_dict({"state_dict": {}, "epoch": 3})
    with pytest.raises(ValueError, match="got 'epoch', 'loss'"):
        from_state_dict({"epoch": 3, "loss": 0.1})


def test_checkpoint_of_another_variant_names_both(make_state_dict):
    for given, needed, first in (
        ("tiny", "base", r"proj.0.weight \[16, 3, 3, 3\] \(needed \[32, 3, 3, 3\]\)"),
        ("base", "small", r"conv_seg.weight \[150, 512, 1, 1\] \(needed \[150, 256"),
    ):
        with pytest.raises(ValueError, match=f"{first}.*is: SegNeXt, {given}, 150"):
            from_state_dict(make_state_dict(given), variant=VARIANTS[needed])


def test_nothing_of_another_variant_fits_even_when_not_strict(make_state_dict):
    given = {
        name: value
        for name, value in make_state_dict("tiny").items()
        if not name.endswith("conv_seg.bias")
    } | {"decode_head.conv_seg.bias": np.zeros(7, np.float32)}
    with pytest.raises(ValueError, match="every array must have the network's shape"):
        from_state_dict(given, variant=VARIANTS["base"], num_classes=8, strict=False)


def test_van_checkpoint_is_told_apart(make_state_dict):
    given = {
        name.replace("conv0_1", "conv_spatial"): value
        for name, value in make_state_dict("tiny", kind="backbone").items()
        if ".proj." not in name
    }
    with pytest.raises(ValueError, match="They look like a VAN's"):
        from_state_dict(given)


def test_part_of_a_network_is_refused(make_state_dict):
    given = {n: v for n, v in make_state_dict().items() if "block4" not in n}
    with pytest.raises(ValueError, match="must hold all stages of the encoder"):
        from_state_dict(given)


def test_export_refuses_what_is_no_whole_network(make_state_dict):
    variables = from_state_dict(make_state_dict()).variables
    with pytest.raises(ValueError, match="dialect must be one of official"):
        to_state_dict(variables, "keras")
    with pytest.raises(ValueError, match="must be those of SegNeXt"):
        to_state_dict({"params": {"dense": {"kernel": np.zeros((2, 3))}}})
    del variables["params"]["decode_head"]["align"]["conv"]
    with pytest.raises(ValueError, match="params.decode_head.align.conv.kernel"):
        to_state_dict(variables)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("false", "found"),
    [
        (np.full(16, np.nan, np.float32), "nan, infinity"),
        (np.append(np.zeros(15, np.float32), -np.inf), "nan, infinity"),
        (np.full(16, 1e300), "nan, infinity or what exceeds float32"),
        (np.full(16, 1j), "type complex128"),
        (np.full(16, "1"), "type <U1"),
        (np.zeros(16, "M8[s]"), "type datetime64"),
        (np.zeros(16, "f4,i4"), r"type \[\('f0'"),
    ],
)
def test_what_is_no_weight_is_refused(false, found, strict, make_state_dict):
    given = make_state_dict(SMALL, num_classes=5)
    assert given["backbone.norm2.bias"].shape == false.shape
    given["backbone.norm2.bias"] = false
    with pytest.raises(ValueError, match=f"backbone.norm2.bias holds {found}"):
        from_state_dict(given, variant=SMALL, strict=strict)


def test_stage_without_channels_is_no_stage(make_state_dict):
    given = make_state_dict(SMALL, num_classes=5)
    given["backbone.norm4.bias"] = np.zeros(0, np.float32)
    with pytest.raises(ValueError, match="must hold all stages of the encoder"):
        from_state_dict(given, variant=SMALL)
