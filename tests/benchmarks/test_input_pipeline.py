import pytest

from benchmarks import input_pipeline


def test_the_loader_is_measured_beside_decoding(capsys, monkeypatch):
    small = input_pipeline.CASES["ade20k"]._replace(
        batch_size=2,
        size=(60, 80),
        num_examples=4,
        crop_size=(48, 48),
        base_scale=(200, 60),
    )
    monkeypatch.setitem(input_pipeline.CASES, "ade20k", small)
    input_pipeline.main(["--case=ade20k", "--rounds=2"])
    _, _, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[1] for row in cells] == ["decoding", "ours"]
    for row in cells:
        assert float(row[4]) == pytest.approx(1e3 / float(row[2]), rel=0.02)
