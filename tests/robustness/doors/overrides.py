"""--config.FIELD=VALUE, as every command takes it, and stores it."""

from pathlib import Path

import numpy as np

from segnext_jax import config as config_lib
from segnext_jax.config import FIELDS
from tests.robustness.case import Case
from tests.robustness.texts import line_of_noise

# Neither a value of any field that holds no text, nor of its parts.
_WRONG = ("nan", "inf", "-inf", "1e400", "1j", "a", "1,a", "(((", "{1: 2}", "b'x'")
_WRONG += ("10" * 12, "[" * 3000, "-" * 9999 + "1", "''", "...", "__import__('os')")
_ODD = ("None", "none", "true", "False", "0", "-1", "1", "2", "0.5", "1e-9", "", " ")
_ODD += ("1,", ",", "1,2", "2,1", "1x2", "32x32", "7:0,8:1", "(1,2),(3,4)", "1_000")
_ODD += ("0x10", "1.0", "255", "256", "2147483647", "2147483648", "0,0,0", "1;2", "[]")
_ODD += ("tiny", "large", "ade20k", "folder", "classification", "bfloat16", "fixed")


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write arguments of a command line."""
    texts, is_wrong = [], False
    for _ in range(int(rng.choice([1, 1, 3]))):
        field = str(rng.choice(list(FIELDS)))
        choice = int(rng.integers(10))
        if choice < 3:
            value = str(rng.choice(_WRONG))
            is_wrong |= FIELDS[field].kind.type is not str
        elif choice < 6:
            value = str(FIELDS[field].default).strip("()")
        elif choice < 9:
            value = str(rng.choice(_ODD))
        else:
            value = line_of_noise(rng)
        text = f"{field}={value}"
        if rng.random() < 0.1:
            text = [field, f"{field}x=1", field.partition(".")[0] + ".=1", "=", ""][
                int(rng.integers(5))
            ]
            is_wrong = True
        texts.append(text)
    # Of one field given twice the last counts.
    is_wrong &= len({text.partition("=")[0] for text in texts}) == len(texts)

    def use() -> None:
        config = config_lib.load(None, texts)
        again = config_lib.from_json(config_lib.to_json(config))
        assert again == config, "what a run stores is another configuration"

    return Case(f"{[text[:80] for text in texts]}", use, is_wrong)
