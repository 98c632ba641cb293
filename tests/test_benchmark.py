import importlib.metadata
import json
import os
import pathlib

import pytest

from segnext_jax.benchmark import input_pipeline
from segnext_jax.benchmark.__main__ import main
from segnext_jax.benchmark.report import Report


def test_a_report_is_a_table_and_json(capsys, tmp_path):
    report = Report(
        "Title",
        [{"a": 1.23456, "b": "x"}, {"a": 250.0, "c": None}],
        ["N.", "M."],
        command="python -m program --option",
        date="2030-01-31",
    )
    report.write(str(tmp_path / "out.json"))
    *lines, origin = capsys.readouterr().out.splitlines()
    assert lines == [
        "## Title",
        "",
        "| a | b | c |",
        "| --- | --- | --- |",
        "| 1.23 | x |  |",
        "| 250 |  |  |",
        "",
        "N.",
        "",
        "M.",
        "",
    ]
    versions = f"jax {importlib.metadata.version('jax')}"
    assert origin.startswith("2030-01-31, ") and versions in origin
    assert origin.endswith(": `python -m program --option`")
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["rows"][0] == {"a": 1.23456, "b": "x"}
    machine = stored["machine"]
    assert machine["cores"] == len(os.sched_getaffinity(0))
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists() and "model name" in cpuinfo.read_text():
        assert f": {machine['processor']}\n" in cpuinfo.read_text()
    assert (stored["date"], stored["command"]) == ("2030-01-31", report.command)


def test_the_input_benchmark_measures_three_programs(capsys, tmp_path, monkeypatch):
    small = input_pipeline.CASES["ade20k"]._replace(
        batch_size=2,
        size=(60, 80),
        num_examples=4,
        crop_size=(48, 48),
        base_scale=(200, 60),
    )
    monkeypatch.setitem(input_pipeline.CASES, "ade20k", small)
    arguments = ["--what=input", "--case=ade20k", "--rounds=2", "--memory_batches=20"]
    main([*arguments, f"--output={tmp_path}/out.json"])
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["command"].startswith("python -m segnext_jax.benchmark --what=input")
    assert [row["program"] for row in stored["rows"]] == [
        "decoding",
        "mmseg steps",
        "ours",
    ]
    for row in stored["rows"]:
        assert row["ms per image"] > 0
        assert row["images/s per core"] == pytest.approx(1e3 / row["ms per image"])
    assert len(stored["notes"]) == 2 and "after 2, 10, 20 batches" in stored["notes"][0]
    assert "workers" in stored["notes"][1]
    assert "| ade20k | ours |" in capsys.readouterr().out


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--what=nothing"])
    assert stop.value.code == 2
    assert "invalid choice: 'nothing'" in capsys.readouterr().err
