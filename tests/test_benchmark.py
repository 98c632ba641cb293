import json

import pytest

from segnext_jax.benchmark import input_pipeline
from segnext_jax.benchmark.__main__ import main
from segnext_jax.benchmark.report import Report


def test_a_report_is_a_table_and_json(capsys, tmp_path):
    report = Report(
        "Title", [{"a": 1.23456, "b": "x"}, {"a": 250.0, "c": None}], ["N."]
    )
    report.write(str(tmp_path / "out.json"))
    assert capsys.readouterr().out.splitlines() == [
        "## Title",
        "",
        "| a | b | c |",
        "| --- | --- | --- |",
        "| 1.23 | x |  |",
        "| 250 |  |  |",
        "",
        "N.",
    ]
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["rows"][0] == {"a": 1.23456, "b": "x"}
    assert stored["machine"]["cores"] > 0


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
