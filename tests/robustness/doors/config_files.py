"""Configurations that people write in Python, as training reads them."""

from pathlib import Path

import numpy as np

from segnext_jax import config as config_lib
from segnext_jax.config import FIELDS
from segnext_jax.config.__main__ import main as print_config
from segnext_jax.training.evaluate import configure
from tests.robustness import mutations
from tests.robustness.case import Case
from tests.robustness.old_run import unpacked
from tests.robustness.texts import encoded, line_of_noise

_HEAD = "from segnext_jax.config import base_config, start_from"
# Lines after which get_config() cannot return a configuration.
_ENDS = (
    *("import sys; sys.exit(0)", "raise SystemExit", "raise KeyError(3)", "1 / 0"),
    *("raise MemoryError", "raise GeneratorExit", "raise ValueError('\\ud800')"),
    *("return None", "return {}", "return 3", "return base_config", "return [config]"),
    *("return config.to_dict()", "return config.to_json()", "return config.data"),
    *("yield config", "return get_config()", "import absent_package", "assert False"),
    *("return start_from(__file__, 'absent.py')", "config.data.crop_sizes = 1"),
    *("return start_from(__file__, 'mine.py')", "config.lerning_rate = 3", "return x"),
    *("del config.data; return config", "config.model = None; return config"),
    *("import ml_collections; return ml_collections.ConfigDict()", "raise Exception"),
)
_VALUES = (
    *("None", "-1", "0", "1", "0.5", "'x'", "''", "[]", "[1, 2]", "(1, 2)", "{}"),
    *("object()", "lambda: 1", "float('nan')", "float('inf')", "1j", "b'x'", "10**400"),
    *("set()", "True", "__import__('numpy').float32(1)", "__import__('numpy').ones(3)"),
    *("config", "config.get_ref('num_steps')", "range(3)", "Ellipsis", "'\\ud800'"),
)


def generate(rng: np.random.Generator, folder: Path) -> Case:
    """Write a config file."""
    lines, is_wrong = ["config = base_config()"], False
    choice = int(rng.integers(8))
    what = "as it should be"
    if choice == 0:
        what, is_wrong = _ENDS[int(rng.integers(len(_ENDS)))], True
        lines.append(what)
    elif choice in (1, 2):
        field = str(rng.choice(list(FIELDS)))
        value = str(rng.choice(_VALUES))
        what = f"{field} = {value}"
        lines.append("with config.unlocked(), config.ignore_type():")
        lines.append(f"    config.{what}")
    elif choice == 3:
        field = str(rng.choice([*FIELDS, "data", "model", "optimizer", "evaluation"]))
        what = f"del {field}"
        lines += ["with config.unlocked():", f"    del config.{field}"]
    elif choice == 4:
        lines.append(line_of_noise(rng))
        what = repr(lines[-1][:40])
    body = [f"    {line}" for line in [*lines, "return config"]]
    lines = [_HEAD, "def get_config():", *body]
    data, how = "\n".join(lines).encode(errors="replace"), "UTF-8"
    if rng.random() < 0.2:
        data, how = encoded(rng, lines)
    if choice == 5:
        how, data = mutations.mutate(rng, data)
    path = folder / "mine.py"
    path.write_bytes(data)

    def use() -> None:
        configure(unpacked(folder.parent) / "run", (), str(path))
        print_config([str(path), "--print"])
        config = config_lib.load(str(path))
        again = config_lib.from_json(config_lib.to_json(config))
        assert again == config, "what a run stores is another configuration"

    return Case(f"{what}, {how}", use, is_wrong)
