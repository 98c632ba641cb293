import importlib.util

import jax
import numpy as np
import pytest

from benchmarks import operations
from benchmarks.compare import own_process, programs, roofline, torch_segnext
from benchmarks.compare.__main__ import main, parse
from benchmarks.compare.torch_network import TorchNetwork
from segnext_jax.models.segnext import VARIANTS, Variant

SMALL = Variant((4, 8, 12, 16), (1, 1, 1, 1), (2, 2, 2, 2), 0.0, 32, 4)
SIZE = (
    *("--size=64x32", "--batch=2", "--rounds=3", "--no-memory"),
    # Compiled in half the time.
    "--depthwise=grouped",
)


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setitem(VARIANTS, "tiny", SMALL)
    sizes = tuple(SMALL.__dict__.values())
    monkeypatch.setitem(torch_segnext.SPECS, "tiny", sizes)
    peaks = roofline.Peaks(flops=1e9, bandwidth=1e8)
    monkeypatch.setattr(roofline, "measure_peaks", lambda dtype: peaks)
    monkeypatch.setattr(operations, "measure_peaks", lambda dtype: peaks)


@pytest.fixture
def measure(capsys):
    """A function that returns the rows of a table, and the notes below it."""

    def run(program, *arguments):
        program(arguments)
        head, *notes = capsys.readouterr().out.split("\n\n")
        columns, _, *rows = (
            [cell.strip() for cell in line.strip("| ").split(" | ")]
            for line in head.splitlines()
        )
        return [dict(zip(columns, row, strict=False)) for row in rows], notes

    return run


def test_ours_alone_has_a_row_for_each_combination(measure):
    rows, notes = measure(main, *SIZE, "--torch_forms", "--size", "32", "64x32")
    assert [(row["size"], row["batch"], row["work"]) for row in rows] == [
        (size, "2", work)
        for size in ("32x32", "64x32")
        for work in ("logits", "labels")
    ]
    row = rows[0]
    milliseconds = float(row["median ms"])
    assert float(row["images/s"]) == pytest.approx(2e3 / milliseconds, rel=0.02)
    pixels = 2 * 32 * 32 / 1e6
    expected = milliseconds / pixels
    assert float(row["ms per megapixel"]) == pytest.approx(expected, rel=0.02)
    # A product more than the peak allows, or less than counted, would show here.
    macs = 1e9 * float(row["share of roofline"]) * milliseconds / 1e3 / 2
    assert 3e4 < macs < 3e6
    assert notes[-1].strip().endswith("--torch_forms --size 32 64x32`")


def test_programs_are_compared_and_timed_beside_pytorch(measure, monkeypatch):
    logits_fn = TorchNetwork.logits

    def logits(self):
        if self._is_compiled:
            raise RuntimeError("no compiler\nfor this")
        return logits_fn(self)

    monkeypatch.setattr(TorchNetwork, "logits", logits)
    forms = ("--torch_forms", "eager", "compile", "channels_last")
    rows, notes = measure(main, *SIZE, "--work=logits", *forms)
    assert [row["program"] for row in rows] == [
        *("ours", "torch eager", "torch channels_last")
    ]
    assert min(float(row["ratio to best torch"]) for row in rows[1:]) == 1
    assert all(0 < float(row["difference"]) < 1e-5 for row in rows[1:])
    assert notes[0].strip() == "Without logits, torch compile: no compiler"


@pytest.mark.parametrize("work", ["labels", "evaluation", "step"])
def test_both_networks_do_the_same_work(work, monkeypatch):
    monkeypatch.setattr(programs, "PHOTOGRAPH_SIZES", ((50, 75), (61, 90)))
    monkeypatch.setattr(programs, "NUM_PHOTOGRAPHS", 2)
    case = programs.Case(work, "tiny", (64, 32), 2, depthwise="grouped")
    ours, theirs = (own_process.build(case, name) for name in ("ours", "torch eager"))
    outputs = [program.to_numpy(program.run()) for program in (ours, theirs)]
    difference = programs.check_same(case, *outputs)
    assert ours.num_bytes > 0
    if work != "step":
        assert outputs[0].dtype == outputs[1].dtype and difference < 1e-3
        return
    # Other draws of dropout and bases; AdamW's moments are as large as the weights.
    assert 0 < difference < 0.02
    assert ours.to_numpy(ours.run()) != outputs[0]
    weights = jax.tree.leaves(programs.make_inputs(case).variables["params"])
    num_bytes = sum(leaf.nbytes for leaf in weights)
    assert 2 * num_bytes <= theirs.settle() < 2.1 * num_bytes


def test_different_outputs_are_refused():
    def check(work, ours, theirs, dtype="float32"):
        case = programs.Case(work, "tiny", (32, 32), 1, dtype=dtype)
        return programs.check_same(case, ours, theirs)

    logits = np.ones((1, 2, 2, 3))
    with pytest.raises(ValueError, match="logits must be equal before they are timed"):
        check("logits", logits, 1.01 * logits)
    check("logits", logits, (1 + 1e-5) * logits)
    check("logits", logits, 1.01 * logits, "bfloat16")
    with pytest.raises(ValueError, match="label maps must be equal"):
        check("labels", logits, np.zeros_like(logits), "bfloat16")
    with pytest.raises(ValueError, match="losses must be equal"):
        check("step", np.array(2.0), np.array(2.1))
    confusion = np.array([[600, 400], [0, 1000]])
    moved = confusion + [[-1, 1], [0, 0]]
    assert check("evaluation", confusion, moved) == 1 / 2000
    with pytest.raises(ValueError, match="confusion matrices must be equal"):
        check("evaluation", confusion, confusion + 1)
    with pytest.raises(ValueError, match="a difference of inf"):
        check("logits", logits, logits[:, :1])


def test_wrong_options_are_named(monkeypatch):
    for size in ("100x64", "64x64x64", "0"):
        with pytest.raises(ValueError, match="be HEIGHTxWIDTH, both multiples of 32"):
            parse([f"--size={size}", "--torch_forms"])
    with pytest.raises(ValueError, match="--batch and --rounds must be at least 1"):
        parse(["--batch=0", "--torch_forms"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="PyTorch is not installed.*pip install"):
        parse([])


def test_the_bound_is_the_slower_of_products_and_traffic():
    peaks = roofline.Peaks(flops=100.0, bandwidth=10.0)
    assert peaks.bound_ms(50.0, 1.0) == 500
    assert peaks.bound_ms(50.0, 20.0) == 2000


def test_forms_of_an_operation_that_fail_or_differ_are_named(measure, monkeypatch):
    monkeypatch.setattr(operations, "_flax_gelu", lambda values: 1.001 * values)
    rows, notes = measure(
        *(operations.main, "--image_size=64", "--stages", "2", "--rounds=2"),
        *("--only", "gelu", "attention", "--depthwise", "shifted", "nothing"),
    )
    assert [(row["operation"], row["form"]) for row in rows] == [
        *(("attention", "shifted"), ("gelu", "own"))
    ]
    assert all(float(row["gradient ms"]) > 0 for row in rows)
    assert notes[0].strip().startswith("Not measured, stage 2 attention: nothing ")
    assert "all forms of gelu must give the same" in notes[1]
