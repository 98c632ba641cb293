import json

import numpy as np
import pytest

from segnext_jax.benchmark import network, operations, turns
from segnext_jax.benchmark.__main__ import main
from segnext_jax.models.segnext import VARIANTS, Variant

SMALL = Variant((4, 8, 12, 16), (1, 1, 1, 1), (2, 2, 2, 2), 0.0, 32, 4)


@pytest.fixture(autouse=True)
def known_peaks(monkeypatch):
    peaks = turns.Peaks(flops=1e9, bandwidth=1e8)
    monkeypatch.setattr(turns, "measure_peaks", lambda dtype: peaks)


@pytest.fixture
def small_network(monkeypatch):
    monkeypatch.setitem(VARIANTS, "tiny", SMALL)


def measure(tmp_path, *arguments):
    main([*arguments, f"--output={tmp_path}/out.json"])
    return json.loads((tmp_path / "out.json").read_text())["rows"]


SIZE = ("--size=64x32", "--batch=2", "--classes=5", "--rounds=3")


def test_forward_reports_logits_and_label_maps(tmp_path, small_network):
    logits, labels = measure(tmp_path, "--what=forward", *SIZE)
    assert (logits["work"], labels["work"]) == ("logits", "labels")
    for row in (logits, labels):
        assert 0 < row["min ms"] <= row["median ms"]
        assert row["ratio to best torch"] is None
    # A product more than the peak allows, or less than counted, would show here.
    macs = 1e9 * logits["share of roofline"] * logits["median ms"] / 1e3 / 2
    assert 1e5 < macs < 1e7


def test_the_train_step_learns_while_it_is_timed(small_network):
    options = _options("--what=train", *SIZE)
    program = network.train_step(network.make_case(options))
    losses = [float(program.run()["loss"]) for _ in range(3)]
    assert all(np.isfinite(losses)) and len(set(losses)) == 3
    assert program.memory_mb > 0 and program.first_s > 0


def test_operations_of_a_stage(tmp_path, small_network):
    rows = measure(
        tmp_path, "--what=ops", "--image_size=64", "--stages", "2", "--rounds=3"
    )
    names = [(row["operation"], row["form"]) for row in rows]
    sizes = [*operations.KERNEL_SIZES, (3, 3)]
    assert names[: 2 * len(sizes)] == [
        (f"depthwise {height}x{width}", form)
        for height, width in sizes
        for form in ("shifted", "grouped")
    ]
    assert [name for name, _ in names[2 * len(sizes) :]] == [
        *("gelu", "1x1", "nmf, 6 steps")
    ]
    assert all(row["forward ms"] > 0 and row["gradient ms"] > 0 for row in rows)


@pytest.mark.slow
def test_ours_and_pytorch_are_compared_before_they_are_timed(tmp_path, reference):
    rows = measure(
        tmp_path, "--what=forward", f"--against={reference}/torch_segnext.py", *SIZE
    )
    programs = ["ours", "torch eager", "torch channels_last"]
    assert [row["program"] for row in rows] == 2 * programs
    assert min(row["ratio to best torch"] for row in rows[1:3]) == 1


def test_different_outputs_are_refused():
    logits = np.ones((1, 2, 2, 3))
    with pytest.raises(ValueError, match="logits must be equal before they are timed"):
        network._check("logits", logits, 1.01 * logits, "float32")
    network._check("logits", logits, (1 + 1e-5) * logits, "float32")
    with pytest.raises(ValueError, match="labels must be equal"):
        network._check("labels", logits, np.zeros_like(logits), "bfloat16")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--size=100x64", "--size must be HEIGHTxWIDTH, both multiples of 32"),
        ("--against=nowhere.py", "--against must be a Python file"),
    ],
)
def test_wrong_options_are_named(option, message, small_network, tmp_path):
    with pytest.raises(ValueError, match=message):
        main(["--what=forward", "--size=32x32", "--classes=5", option])


def test_programs_take_turns_and_warm_up_does_not_count():
    calls = []
    programs = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = turns.take_turns(programs, rounds=3, warm_up=2)
    assert calls == ["a", "b"] * 5
    assert [len(times[name].wall) for name in "ab"] == [3, 3]


def test_the_bound_is_the_slower_of_products_and_traffic():
    peaks = turns.Peaks(flops=100.0, bandwidth=10.0)
    assert peaks.bound_s(50.0, 1.0) == 0.5
    assert peaks.bound_s(50.0, 20.0) == 2.0


def test_memory_of_a_run_is_what_it_touches():
    given = turns.memory_mb(lambda: np.ones(2**24).sum())
    if given is None:
        pytest.skip("the kernel does not let a process reset its peak")
    assert 120 < given < 200


def _options(*arguments):
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--what")
    network.add_options(parser)
    return parser.parse_args(arguments)
