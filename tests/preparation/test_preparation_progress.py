import sys

from segnext_jax.preparation import preparation_progress
from segnext_jax.preparation.preparation_progress import show_progress


def test_lines_now_and_then_where_there_is_no_terminal(monkeypatch, capsys):
    clock = iter([100.0, *(100.0 + 4 * k for k in range(1, 8))])
    monkeypatch.setattr(preparation_progress.time, "monotonic", lambda: next(clock))
    assert list(show_progress(range(7), 300, "tiny train")) == list(range(7))
    # Four seconds an image: the third and the sixth are ten seconds after a line.
    assert capsys.readouterr().out.splitlines() == [
        "tiny train 3/300  0.2 images/s  19.8 min left",
        "tiny train 6/300  0.2 images/s  19.6 min left",
    ]


def test_a_bar_with_the_total_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(show_progress(iter("abc"), 3, "tiny train")) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert out == "" and "tiny train: 100%" in err and "3/3" in err
