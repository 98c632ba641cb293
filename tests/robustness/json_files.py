"""Small JSON files as power losses, editors and other programs leave them."""

import json
from typing import Any

import numpy as np

from tests.robustness import mutations

# No JSON objects.
_FOREIGN = (
    b"",
    b"\0" * 300,
    b"[1]",
    b"null",
    b"3",
    b'"text"',
    b"[" * 10**5,
    b'{"a":' * 10**4,
    b"1e999",
    b"<html></html>",
    b'{"a": 1',
    b"\xff\xfe{\0}\0",
)
_VALUES = (
    *(None, True, -1, 0, 1.5, 10**23, 10**400, float("nan"), float("inf"), "", "x"),
    *("\ud800", [], [[]], [1, "a"], {}, {"a": 1}, [None], "a" * 5000, ["é"] * 300),
)


def malformed(rng: np.random.Generator, data: bytes) -> tuple[str, bytes, bool]:
    """Return what was done, the contents, and whether it surely is no JSON object."""
    choice = int(rng.integers(5))
    if choice == 0:
        return "cut", mutations.cut(rng, data), True
    if choice == 1:
        foreign = _FOREIGN[int(rng.integers(len(_FOREIGN)))]
        return f"{foreign[:12]!r}", foreign, True
    if choice == 2:
        what, data = mutations.mutate(rng, data)
        return what, data, False
    content = json.loads(data)
    what = changed(rng, content)
    return what, json.dumps(content).encode(), False


def changed(rng: np.random.Generator, content: dict[str, Any]) -> str:
    """Change one value at any depth in place; return what was done."""
    section, names = content, []
    while True:
        name = str(rng.choice(list(section)))
        names.append(name)
        if not isinstance(section[name], dict) or not section[name]:
            break
        if rng.random() < 0.2:
            break
        section = section[name]
    where = ".".join(names)
    if rng.random() < 0.2:
        del section[name]
        return f"without {where}"
    value = _VALUES[int(rng.integers(len(_VALUES)))]
    section[name] = value
    return f"{where} = {json.dumps(value)[:40]}"
