import jax
import pytest

from segnext_jax.benchmark.__main__ import main
from segnext_jax.benchmark.programs import take_turns
from segnext_jax.cli import command

# The programs of tests/benchmarks/test_compare.py, which are compiled once.
FIELDS = (
    *("model.embed_dims=4,8,12,16", "model.depths=1,1,1,1", "model.rank=4"),
    *("model.mlp_ratios=2,2,2,2", "model.head_channels=32", "batch_size=2"),
    *("model.drop_path_rate=0", "model.depthwise=grouped", "data.photometric=false"),
)


@pytest.fixture
def rows(capsys):
    """A function that runs the command and returns its rows and its last line."""

    def run(*arguments):
        fields = [f"--config.{field}" for field in FIELDS]
        main([*fields, "--rounds=2", *arguments])
        table, origin = capsys.readouterr().out.split("\n\n")
        columns, _, *lines = (
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in table.splitlines()
        )
        return [dict(zip(columns, line, strict=True)) for line in lines], origin

    return run


def test_forward_and_train_are_of_the_configuration(rows):
    crop = "--config.data.crop_size=64,32"
    found, origin = rows("--what=forward", crop)
    assert [row["what"] for row in found] == ["logits", "label maps"]
    for row in found:
        milliseconds = float(row["median ms"])
        assert float(row["images/s"]) == pytest.approx(2e3 / milliseconds, rel=0.02)
    assert float(found[0]["plan MB"]) > 0 and float(found[0]["compilation s"]) > 0
    assert f"jax {jax.__version__}" in origin and " cores, " in origin
    assert origin.strip().endswith(f"--what=forward {crop}`")
    (row,), _ = rows("--what=train", crop)
    assert row["what"] == "train step" and float(row["plan MB"]) > 0


def test_input_is_the_trainings_batches(rows, shapes_dir):
    found, _ = rows(
        *("--what=input", "--config=configs/shapes_tiny.py"),
        f"--config.data.data_dir={shapes_dir}",
    )
    assert [row["what"] for row in found] == ["input"]
    assert float(found[0]["images/s"]) > 0


def test_wrong_options_are_one_sentence(capsys):
    for arguments, message in (
        (["--what=input", "--rounds=0"], "--rounds must be at least 1: got 0."),
        (["--what=train", "--config.batchsize=3"], "Did you mean config.batch_size?"),
        (["--what=train", "--config=configs/imagenet_tiny.py"], "of a segmentation"),
    ):
        assert command.run(main, arguments) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--what=nothing"])
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


def test_programs_take_turns_and_warm_up_does_not_count():
    calls = []
    programs = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = take_turns(programs, rounds=3, warm_up=2)
    assert calls == ["a", "b"] * 5
    assert [len(times[name].wall) for name in "ab"] == [3, 3]
