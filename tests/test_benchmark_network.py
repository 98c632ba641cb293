import importlib.util
import json
import os
import pathlib

import jax
import numpy as np
import pytest

from segnext_jax.benchmark import cases, network, operations, programs, turns
from segnext_jax.benchmark.__main__ import main, parse
from segnext_jax.benchmark.time_limit import CaseStopped, Forecast, Limit
from segnext_jax.models.segnext import VARIANTS, Variant

SMALL = Variant((4, 8, 12, 16), (1, 1, 1, 1), (2, 2, 2, 2), 0.0, 32, 4)
SIZE = ("--size=64x32", "--batch=2", "--classes=5", "--rounds=3", "--no-memory")


@pytest.fixture(autouse=True)
def known_peaks(monkeypatch):
    peaks = turns.Peaks(flops=1e9, bandwidth=1e8)
    monkeypatch.setattr(turns, "measure_peaks", lambda dtype: peaks)


@pytest.fixture
def small_network(monkeypatch):
    monkeypatch.setitem(VARIANTS, "tiny", SMALL)


@pytest.fixture
def small_opponent(tmp_path):
    """The same small network in PyTorch."""
    path = tmp_path / "small_torch.py"
    path.write_text(
        "import importlib.util\n"
        f"path = {str(cases.NETWORK)!r}\n"
        "spec = importlib.util.spec_from_file_location('torch_segnext', path)\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        f"module.SPECS['tiny'] = {tuple(SMALL.__dict__.values())}\n"
        "segnext = module.segnext\n"
    )
    return path


def measure(tmp_path, *arguments):
    main([*arguments, f"--output={tmp_path}/out.json"])
    return json.loads((tmp_path / "out.json").read_text())


def test_forward_reports_logits_and_label_maps(tmp_path, small_network):
    logits, labels = measure(tmp_path, "--what=forward", *SIZE)["rows"]
    assert (logits["work"], labels["work"]) == ("logits", "labels")
    for row in (logits, labels):
        assert 0 < row["min ms"] <= row["median ms"]
        assert row["ratio to best torch"] is None
        assert row["images/s"] == pytest.approx(2e3 / row["median ms"])
        pixels = 2 * 64 * 32 / 1e6
        assert row["ms per megapixel"] == pytest.approx(row["median ms"] / pixels)
    # A product more than the peak allows, or less than counted, would show here.
    macs = 1e9 * logits["share of roofline"] * logits["median ms"] / 1e3 / 2
    assert 1e5 < macs < 1e7


@pytest.fixture
def instant_logits(monkeypatch):
    """Programs that do nothing, for cases whose operations grow with the pixels."""

    class Instant(cases.Case):
        def count_flops(self):
            return 1e9 * self.megapixels

    def make_case(options):
        batches = cases._noise(options, None)
        return Instant("tiny", None, {}, np.zeros(1), batches, None)

    monkeypatch.setattr(network, "make_case", make_case)
    nothing = programs.Program(lambda: np.zeros(1))
    monkeypatch.setattr(network, "build", lambda *arguments: nothing)


def test_a_growing_table_has_one_row_for_each_combination(tmp_path, instant_logits):
    arguments = ["--variant", "tiny", "small", "--size", "32", "32x64", "--batch"]
    arguments += ["1", "3", "--work=logits", "--rounds=2", "--no-memory"]
    rows = measure(tmp_path, "--what=forward", *arguments)["rows"]
    assert [(row["variant"], row["size"], row["batch"]) for row in rows] == [
        (variant, size, batch)
        for variant in ("tiny", "small")
        for size in ("32x32", "32x64")
        for batch in (1, 3)
    ]


def test_a_case_beyond_the_time_limit_is_named_and_left(
    tmp_path, instant_logits, monkeypatch
):
    # 13 turns of the first size take 26 s, of the second four times that.
    took = turns.Times([2.0], [2.0])
    monkeypatch.setattr(turns, "take_turns", lambda *a, **k: {"ours": took})
    stored = measure(
        *(tmp_path, "--what=forward", "--work=logits", "--size", "32", "64"),
        *("--classes=5", "--rounds=11", "--no-memory", "--time_limit=100"),
    )
    assert [row["size"] for row in stored["rows"]] == ["32x32"]
    assert stored["notes"][0] == (
        "tiny 1x64x64: left: logits: its turns would take 104 s; 100 s of "
        "--time_limit=100 are left."
    )


@pytest.mark.parametrize("time", [1, 2])
def test_compiled_programs_are_shared_more_than_once_a_process(time):
    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        with network._shared_compilation_cache():
            jax.jit(lambda x: time * x + 1)(np.ones(time))
            shared = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
            assert list(shared.iterdir())
        assert jax.config.jax_compilation_cache_dir is None
        assert os.environ["JAX_COMPILATION_CACHE_DIR"] == folder
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)


def test_a_forecast_grows_with_the_operations():
    forecast = Forecast(num_turns=10)
    forecast.add("logits", {"ours": turns.Times(wall=[0.1, 0.2, 0.3])}, flops=1e6)
    forecast.check("logits", ["ours"], 4e6, Limit(10.0))
    forecast.check("logits", ["ours"], 4e9, Limit(0.0))
    forecast.check("labels", ["ours"], 4e9, Limit(10.0))
    with pytest.raises(CaseStopped, match="turns would take 12 s; 10 s of --time_li"):
        forecast.check("logits", ["ours"], 6e6, Limit(10.0))


def test_a_limit_that_has_passed_stops_a_case(monkeypatch):
    limit = Limit(5.0)
    limit.check("logits")
    monkeypatch.setattr(limit, "_start", limit._start - 6)
    with pytest.raises(CaseStopped, match="5 seconds passed before logits"):
        limit.check("logits")


@pytest.fixture(scope="module")
def train_step():
    """The compiled step of the small network, and its first loss."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "tiny", SMALL)
        options, _ = parse(["--what=train", *SIZE])
        (one,) = cases.split(options)
        program = programs.step(cases.make_case(one))
        yield program, program.first_run()[0], one


def test_the_train_step_learns_while_it_is_timed(train_step):
    program, first, _ = train_step
    losses = [float(first), *(float(program.run()["loss"]) for _ in range(2))]
    assert all(np.isfinite(losses)) and len(set(losses)) == 3
    assert program.plan_mb > 0 and program.compile_s > 0


def test_the_step_in_pytorch_has_the_same_loss(train_step, small_opponent):
    _, first, one = train_step
    one.against = str(small_opponent)
    theirs = programs.build("step", "torch eager", one, cases.make_case(one))
    loss = theirs.first_run()[0]
    # Other draws of dropout and bases.
    assert 0 < programs.check_same("step", first, loss, "float32") < 0.02
    # AdamW's moments, each as large as the weights, and its counts of steps.
    case = cases.make_case(one)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(case.variables["params"]))
    assert 2 * weights <= theirs.settle() < 2.1 * weights


def test_operations_of_a_stage(tmp_path, small_network):
    stored = measure(
        *(tmp_path, "--what=ops", "--image_size=64", "--stages", "2", "--rounds=3"),
        *("--depthwise", "shifted", "grouped", "nothing"),
    )
    rows = stored["rows"]
    # A form that does not run is named, and the others are measured.
    note = stored["notes"][0]
    assert note.startswith("Not measured, stage 2 depthwise 5x5, stage 2 depthwise 1x7")
    assert ": nothing " in note
    names = [(row["operation"], row["form"]) for row in rows]
    sizes = [*operations.KERNEL_SIZES, (3, 3)]
    assert names[: 2 * len(sizes)] == [
        (f"depthwise {height}x{width}", form)
        for height, width in sizes
        for form in ("shifted", "grouped")
    ]
    assert names[2 * len(sizes) :] == [
        *(("attention", "shifted"), ("attention", "grouped")),
        *(("gelu", "own"), ("gelu", "flax"), ("1x1", "own"), ("1x1", "derived")),
        *(("stride two", "own"), ("stride two", "XLA"), ("nmf, 6 steps", "")),
        *(("loss", "own"), ("loss", "enlarged")),
    ]
    for row in rows:
        assert row["forward ms"] > 0 and row["gradient ms"] > 0
        assert row["share of roofline"] > 0 and row["gradient's share"] > 0


def test_forms_that_differ_are_not_timed(tmp_path, small_network, monkeypatch):
    monkeypatch.setattr(operations, "_flax_gelu", lambda values: 1.001 * values)
    stored = measure(
        *(tmp_path, "--what=ops", "--image_size=64", "--stages", "2", "--rounds=3"),
        *("--only", "gelu"),
    )
    assert [row["form"] for row in stored["rows"]] == ["own"]
    assert "all forms of gelu must give the same" in stored["notes"][0]


def test_ours_and_pytorch_are_compared_before_they_are_timed(
    tmp_path, small_network, small_opponent, monkeypatch
):
    from segnext_jax.benchmark.pytorch import Opponent

    logits_fn = Opponent.logits

    def logits(self):
        if self._is_compiled:
            raise RuntimeError("no compiler\nfor this")
        return logits_fn(self)

    monkeypatch.setattr(Opponent, "logits", logits)
    forms = ("--torch_forms", "eager", "compile", "channels_last")
    stored = measure(
        *(tmp_path, "--what=forward", "--work=logits", *forms, *SIZE),
        f"--against={small_opponent}",
    )
    rows = stored["rows"]
    assert [row["program"] for row in rows] == [
        *("ours", "torch eager", "torch channels_last")
    ]
    assert min(row["ratio to best torch"] for row in rows[1:]) == 1
    assert all(0 < row["difference"] < 1e-5 for row in rows[1:])
    assert stored["notes"][0] == (
        "Without logits, torch compile: RuntimeError: no compiler"
    )
    assert stored["machine"]["torch threads"] > 0


def test_pytorch_labels_the_same_bytes(small_network, small_opponent):
    options, _ = parse(["--what=forward", f"--against={small_opponent}", *SIZE])
    (one,) = cases.split(options)
    case = cases.make_case(one)
    ours, theirs = (
        programs.build("labels", name, one, case).first_run()[0]
        for name in ("ours", "torch channels_last")
    )
    assert ours.dtype == theirs.dtype == np.uint8
    assert programs.check_same("labels", ours, theirs, "float32") < 1e-3


def test_evaluations_count_the_same_pixels(tmp_path, small_network, small_opponent):
    # Of two sizes, fitted to the same one: a network is compiled for each.
    sizes = ("--image_size", "50x75", "61x90", "--scale", "128", "64", "--images=3")
    stored = measure(
        *(tmp_path, "--what=evaluate", f"--against={small_opponent}", *sizes),
        *("--batch=2", "--classes=5", "--rounds=2", "--torch_forms=channels_last"),
        "--no-memory",
    )
    ours, theirs = stored["rows"]
    assert (ours["program"], theirs["program"]) == ("ours", "torch channels_last")
    assert ours["images/s"] == pytest.approx(3e3 / ours["median ms"])
    assert 0 <= theirs["difference"] < 1e-3
    assert ours["share of roofline"] > 0


def test_different_outputs_are_refused():
    logits = np.ones((1, 2, 2, 3))
    check = programs.check_same
    with pytest.raises(ValueError, match="logits must be equal before they are timed"):
        check("logits", logits, 1.01 * logits, "float32")
    check("logits", logits, (1 + 1e-5) * logits, "float32")
    with pytest.raises(ValueError, match="labels must be equal"):
        check("labels", logits, np.zeros_like(logits), "bfloat16")
    with pytest.raises(ValueError, match="losses must be equal"):
        check("step", np.array(2.0), np.array(2.1), "float32")
    confusion = np.array([[600, 400], [0, 1000]])
    moved = confusion + [[-1, 1], [0, 0]]
    assert check("evaluation", confusion, moved, "float32") == 1 / 2000
    with pytest.raises(ValueError, match="confusion matrices must be equal"):
        check("evaluation", confusion, confusion + 1, "float32")
    with pytest.raises(ValueError, match="a difference of inf"):
        check("logits", logits, logits[:, :1], "float32")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--size=100x64", "--size must be HEIGHTxWIDTH, both multiples of 32"),
        ("--size=64x64x64", "--size must be HEIGHTxWIDTH"),
        ("--work=step", "--work of --what=forward must be among logits, labels"),
        ("--batch=0", "--batch must be at least 1: got 0"),
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


def test_rounds_that_would_end_too_late_do_not_begin(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(turns.time, "perf_counter", lambda: float(next(clock)))
    # Each look at the clock is a second: three a round, one before it.
    times = turns.take_turns({"a": lambda: None}, 9, warm_up=1, limit_s=14.0)
    assert times["a"].wall == [1.0, 1.0]


def test_against_alone_takes_the_network_of_the_repository():
    options, _ = parse(["--what=forward", "--against", "--torch_forms", "eager"])
    assert next(cases.split(options)).against == str(cases.NETWORK)
    assert parse(["--what=forward"])[0].against is None


def test_against_without_pytorch_is_one_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--against needs PyTorch.*pip install"):
        main(["--what=forward", "--size=32x32", f"--against={__file__}"])
