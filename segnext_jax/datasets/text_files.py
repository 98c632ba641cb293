"""Text as users' editors and spreadsheets save it: one reader for lists and classes."""

import codecs
import functools
import re

from absl import logging

from segnext_jax.datasets.pairs import RawFile, read_file

# A list of two million photographs.
_MAX_BYTES = 2**26
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Neither tab, line ends nor form feed.
_CONTROL = re.compile(r"[\0-\x08\x0b\x0e-\x1f\x7f]")


def read_lines(file: RawFile, max_bytes: int = _MAX_BYTES) -> list[str]:
    r"""Read the lines of a text file, whatever has saved it.

    UTF-8, UTF-16 and UTF-32 with or without a byte order mark, and what is none of
    them as Latin-1, with a warning. Lines end in \n, \r\n or \r.

    Args:
      file: The file.
      max_bytes: How large it may be.

    Returns:
      The lines without their ends.

    Raises:
      PreparationError: If the file is missing or cannot be read.
      ValueError: If the file is no text.
    """
    text = decode_text(read_file(file, max_bytes), str(file))
    lines = re.split(r"\r\n|\n|\r", text)
    return lines if lines[-1] else lines[:-1]


def decode_text(contents: bytes, name: str) -> str:
    """Return the text of a file's contents; see `read_lines`.

    Args:
      contents: The bytes.
      name: The file's name, for messages.

    Raises:
      ValueError: If the bytes are no text.
    """
    try:
        text = contents.decode(_encoding(contents))
    except UnicodeDecodeError:
        text = contents.decode("latin-1")
        if not _CONTROL.search(text):
            _warn_of_latin_1(name)
    if found := _CONTROL.search(text):
        raise ValueError(
            f"{name}: must be a text file: it holds the character {found[0]!r}. Save "
            "it as text in UTF-8."
        )
    return text


def _encoding(contents: bytes) -> str:
    for mark, encoding in _MARKS:
        if contents.startswith(mark):
            return encoding
    # Without a mark: in UTF-16, every other byte of Western text is zero.
    start = contents[:512]
    for offset, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(start) > 1 and not any(start[offset::2]) and any(start[1 - offset :: 2]):
            return encoding
    return "utf-8"


@functools.cache  # Once for each file.
def _warn_of_latin_1(name: str) -> None:
    logging.warning("%s is not UTF-8: read as Latin-1. Save it as UTF-8.", name)
