import codecs
import logging

import pytest

from segnext_jax.datasets.text_files import decode_text, read_lines

LINES = ["rue/été 1.jpg", "路/2", "", "straße"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
    ],
)
def test_lines_are_the_same_whatever_saved_them(tmp_path, mark, encoding, line_end):
    path = tmp_path / "a.txt"
    for end in ("", line_end):
        path.write_bytes(mark + (line_end.join(LINES) + end).encode(encoding))
        assert read_lines(path) == LINES


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_told_by_its_zeros(tmp_path, encoding):
    assert decode_text("train/été\n".encode(encoding), "a") == "train/été\n"


def test_latin_1_is_read_with_a_warning_once(tmp_path, caplog):
    path = tmp_path / "a.txt"
    path.write_bytes("été".encode("latin-1"))
    with caplog.at_level(logging.WARNING):
        assert read_lines(path) == read_lines(path) == ["été"]
    (record,) = caplog.records
    assert record.getMessage().endswith("a.txt is not UTF-8: read as Latin-1. Save it "
        "as UTF-8.")  # fmt: skip


@pytest.mark.parametrize(
    "contents", [b"\x89PNG\0\0\x01", b"a\0b", b"\xff\xd8\xff\xe0\0"]
)
def test_what_is_no_text_is_refused_by_name(contents):
    with pytest.raises(ValueError, match="^train.txt: must be a text file"):
        decode_text(contents, "train.txt")
