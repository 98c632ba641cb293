"""Counts against the published ones and PyTorch's flop counter."""

import dataclasses
import pathlib

import pytest

from segnext_jax.cli import command
from segnext_jax.describe import network
from segnext_jax.describe.__main__ import main
from segnext_jax.models.segnext import VARIANTS, SegNeXt

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    "variant, parameters, giga_macs",
    [
        # MACs at 512x512 by torch.utils.flop_counter on the official network.
        ("tiny", 4_263_414, 6.404),
        pytest.param("small", 13_932_886, 15.646, marks=pytest.mark.slow),
        pytest.param("base", 27_636_310, 34.663, marks=pytest.mark.slow),
        ("large", 48_926_550, 69.686),
    ],
)
def test_counts_equal_the_official_networks(variant, parameters, giga_macs):
    model = SegNeXt(VARIANTS[variant], num_classes=150)
    assert sum(network.count_parameters(model).values()) == parameters
    macs = sum(network.count_macs(model, (512, 512)).values())
    assert macs / 1e9 == pytest.approx(giga_macs, abs=5e-4)


def test_feature_sizes_are_rounded_up():
    tiny = dataclasses.replace(VARIANTS["tiny"], depths=(1, 1, 1, 1))
    model = SegNeXt(tiny, num_classes=19)
    assert network.feature_shapes(model, (97, 161)) == {
        "stage 1": (25, 41, 32),
        "stage 2": (13, 21, 64),
        "stage 3": (7, 11, 160),
        "stage 4": (4, 6, 256),
        "logits": (13, 21, 19),
    }


def test_program_prints_modules_features_and_groups(capsys):
    code = command.run(
        main,
        [
            f"--config={ROOT / 'configs' / 'camvid_tiny.py'}",
            "--config.model.drop_path_rate=0.2",
            "--depth=1",
        ],
    )
    assert code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Multiplications (MACs) are those of a 352x352 image."
    assert [line.split()[0] for line in lines[2:7]] == [
        *("module", "SegNeXt", "backbone", "decode_head", "whole")
    ]
    assert lines[4].split()[1] == "3,903,584"
    assert lines[6].split()[2:] == lines[3].split()[1:]
    assert "  stage 4  11 x 11 x 256" in lines
    assert any(line.startswith("  norm: 66 tensors, 8,384 values") for line in lines)


def test_modules_are_in_the_order_of_their_numbers(capsys):
    deep = "--config.model.depths=1,1,11,1"
    main(["--config=ade20k_tiny", deep, "--size=64x96", "--depth=9"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("of a 64x96 image.")
    names = [line.split()[0] for line in lines[3:] if line.startswith("    ")]
    blocks = [name for name in names if name.startswith("block3_")]
    assert "hamburger" in names
    assert blocks == [f"block3_{i}" for i in range(11)]
    assert all("," not in name and "->" not in name for name in names)


def test_a_size_is_also_two_numbers(capsys):
    shallow = "--config.model.depths=1,1,1,1"
    main(["--config=shapes_tiny", shallow, "--size", "64", "96", "--depth=0"])
    assert "64x96" in capsys.readouterr().out


def test_unknown_field_is_refused(capsys):
    config = ROOT / "configs" / "camvid_tiny.py"
    arguments = [f"--config={config}", "--config.model.varant=tiny"]
    assert command.run(main, arguments) == 1
    assert "Did you mean config.model.variant?" in capsys.readouterr().err


def test_config_of_a_classifier_is_refused():
    with pytest.raises(ValueError, match="imagenet_tiny.py is of classification. Take"):
        main([f"--config={ROOT / 'configs' / 'imagenet_tiny.py'}"])
