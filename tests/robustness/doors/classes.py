"""classes.txt, as training, check_dataset and prepare read it."""

from pathlib import Path

import numpy as np

from segnext_jax.datasets.class_table import read_class_table
from tests.robustness import mutations
from tests.robustness.case import Case
from tests.robustness.texts import encoded, line_of_noise

_FORMS = (
    "{name}",
    "{i} {name}",
    "{name} {r} {g} {b}",
    "{name},{r},{g},{b}",
    "{name} = {r}:{g}:{b}",
    "{name}:{r},{g},{b}::",
    '"{name}, {name}" {r} {g} {b}',
    "{i}, {name}",
)


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write a file of classes."""
    form = str(rng.choice(_FORMS))
    count = int(rng.choice([1, 2, 20, 255]))
    lines = [
        form.format(name=f"class {i} é", i=i, r=i, g=255 - i, b=7) for i in range(count)
    ]
    choice = int(rng.integers(9))
    is_wrong = False
    what = f"{count} lines {form}"
    if choice == 0:
        lines.append(form.format(name="x", i=count, r=256, g=0, b=0))
        is_wrong = "{r}" in form
    elif choice == 1:
        lines.append(lines[0])
        what, is_wrong = f"{what}, one twice", True
    elif choice == 2:
        lines += [f"more {i}" for i in range(256)]
        what, is_wrong = f"{what}, too many", True
    elif choice == 3:
        lines.insert(int(rng.integers(count + 1)), line_of_noise(rng))
    elif choice == 4:
        lines, is_wrong = [], True
    elif choice == 5:
        line = line_of_noise(rng)
        count = int(rng.choice([1, 10**4, 10**5]))
        lines = [line] * min(count, 10**7 // (len(line) + 1))
    data, how = encoded(rng, lines)
    if choice == 6:
        how, data = mutations.mutate(rng, data or b"\0")
    elif choice == 7:
        how, data, is_wrong = "a binary file", b"\x89PNG\r\n\0\1" + rng.bytes(200), True
    path = folder / "classes.txt"
    path.write_bytes(data)
    return Case(f"{what}, {how}", lambda: read_class_table(path).spec("mine"), is_wrong)
