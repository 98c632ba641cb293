import re
import sys

import pytest
from absl import logging

from segnext_jax.cli import progress
from segnext_jax.cli.command import set_up_logging
from segnext_jax.cli.progress import Progress, followed


@pytest.fixture
def clock(monkeypatch):
    """The time; tests set it."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


def test_every_report_is_a_line_unless_it_comes_too_soon(clock, caplog):
    with caplog.at_level("INFO"):
        for seconds_per_line in (0.0, 10.0):
            counter = Progress(5, 0, "train", seconds_per_line)
            for step in range(1, 6):
                counter.advance()
                clock[0] += 4
                counter.report(step, {"loss": f"{step}"})
    shown = [line.split("  ")[0] for line in lines(caplog)]
    # The last step is always shown.
    assert shown == [f"train {i}/5" for i in (1, 2, 3, 4, 5, 3, 5)]


def test_items_are_followed_with_their_pace(clock, caplog):
    def items():
        for item in range(7):
            yield item
            clock[0] += 4

    with caplog.at_level("INFO"):
        assert list(followed(items(), 7, "tiny train", num_images=8)) == [*range(7)]
    # Eight images in four seconds, from when the first item was there.
    assert [line.split("  ")[:2] for line in lines(caplog)] == [
        ["tiny train 4/7", "images/s 2.67"],
        ["tiny train 7/7", "images/s 2.33"],
    ]


@pytest.mark.parametrize("done", [0, 40], ids=["new", "resumed"])
def test_time_left_is_told_when_a_pace_is_known(clock, caplog, done):
    with caplog.at_level("INFO"):
        counter = Progress(done + 5, done, "train")
        for step in (1, 2, 3):
            clock[0] += 60 if step == 1 else 1801  # The first holds compilation.
            counter.advance()
            counter.report(done + step, {"loss": "1"})
    assert lines(caplog) == [
        f"train {done + 1}/{done + 5}  loss 1",
        f"train {done + 2}/{done + 5}  loss 1  ETA 1:30:03",
        f"train {done + 3}/{done + 5}  loss 1  ETA 1:00:02",
    ]


def test_a_line_of_the_log_stands_above_the_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    handler = logging.get_absl_handler().python_handler
    monkeypatch.setattr(handler, "stream", handler.stream)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    set_up_logging()
    counter = Progress(3, 0, "train")
    counter.advance()
    logging.warning("hello")
    counter.close()
    parts = re.split(r"[\r]", capsys.readouterr().err)
    (line,) = (part for part in parts if "hello" in part)
    assert re.fullmatch(r"\d\d:\d\d:\d\d hello\n", line)


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(followed(iter("abc"), 3, "tiny train")) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert out == "" and "tiny train: 100%" in err and "3/3" in err
