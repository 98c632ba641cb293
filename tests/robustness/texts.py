"""Text as editors, spreadsheets and accidents leave it."""

import codecs

import numpy as np

_ENCODINGS = {
    "UTF-8": (b"", "utf-8"),
    "UTF-8 with a mark": (codecs.BOM_UTF8, "utf-8"),
    "UTF-16": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "UTF-16 big": (codecs.BOM_UTF16_BE, "utf-16-be"),
    "UTF-32": (codecs.BOM_UTF32_LE, "utf-32-le"),
    "Latin-1": (b"", "latin-1"),
}
_NOISE = (
    *("{}", "%s%n", "../../etc/passwd", "/dev/zero", "C:\\x\\y.jpg", ",,,,", ";;", "="),
    *(
        ":::",
        '"',
        '""',
        "'",
        "\t\t",
        "#",
        "\u202e\u0000x",
        "1 2 3",
        "1:2:3",
        "a" * 5000,
    ),
    *(" " * 3000 + "1", "1 " * 900, "é" * 400, "\ufeff", "nan", "-1 -1 -1", "a,b,c,d"),
)


def encoded(rng: np.random.Generator, lines: list[str]) -> tuple[bytes, str]:
    """Return lines in a random encoding with random ends, and what these are."""
    name = str(rng.choice(list(_ENCODINGS)))
    mark, encoding = _ENCODINGS[name]
    end = str(rng.choice(["\n", "\r\n", "\r"]))
    text = end.join(lines) + end * int(rng.integers(2))
    return mark + text.encode(encoding, "replace"), f"{name} with {end!r}"


def line_of_noise(rng: np.random.Generator) -> str:
    """Return a line that nobody expects."""
    if rng.random() < 0.3:
        codes = rng.integers(1, 0xD800, int(rng.integers(1, 30)))
        return "".join(map(chr, codes.tolist()))
    return str(rng.choice(_NOISE))
