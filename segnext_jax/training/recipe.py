"""A configuration that suits a folder of photographs and this machine, and its run.

`segnext-jax train FOLDER` and `segnext_jax.train` choose it once, write it beside the
run's folder as ``runs/NAME.py``, and from then on go by that file, which may be edited.
"""

import math
import os
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from segnext_jax import config as config_lib
from segnext_jax import weights
from segnext_jax.check_dataset import conventions
from segnext_jax.check_dataset.finding import ERROR
from segnext_jax.check_dataset.findings import find
from segnext_jax.check_dataset.inspection import inspect_all
from segnext_jax.check_dataset.summary import Summary, summarize
from segnext_jax.check_dataset.target import open_target
from segnext_jax.cli import storage
from segnext_jax.cli.command import counted
from segnext_jax.cli.progress import followed
from segnext_jax.cli.whole_files import naming, whole_file
from segnext_jax.config.overrides import apply, assign, flatten
from segnext_jax.datasets.resolve import FOLDER
from segnext_jax.training import loop

# Photographs and masks that are read to know the set, evenly from the whole.
_MAX_READ = 2000
# A train step in float32: bytes for each pixel of a crop. Counted for bfloat16 (tiny
# and base: BENCHMARKS.md), doubled, with room for GPUs without our kernels; the other
# two by their channels.
_BYTES_PER_PIXEL = {"tiny": 3_000, "small": 4_000, "base": 7_000, "large": 11_000}
_MEMORY_SHARE = 0.8


def train(
    folder: pathlib.Path, workdir: pathlib.Path | None, overrides: Sequence[str]
) -> pathlib.Path:
    """Train on a folder of photographs and masks, or go on; return the run's folder.

    Args:
      folder: The folder; nothing is written into it.
      workdir: The run's folder; None: ``runs/NAME`` for a folder of that name.
      overrides: Fields to set: ``"model.variant=small"``, ... What is not set is
        chosen.

    Raises:
      ValueError: If the folder cannot be trained on, or a field is impossible; what
        `segnext_jax.training.loop.train` raises.
      OSError: If there are no such folders, or the run's cannot be written.
    """
    storage.refuse_bucket(folder, "photographs and masks")
    folder = folder.expanduser().absolute()
    workdir = workdir or pathlib.Path("runs") / folder.name
    file = workdir.parent / f"{workdir.name}.py"
    if file.exists():
        with storage.local(file) as copy, naming(file, copy):
            config = config_lib.load(str(copy), overrides)
        if pathlib.Path(config.data.folder).absolute() != folder:
            raise ValueError(
                f"{file} must be the configuration of {folder}: it is that of "
                f"{config.data.folder or config.data.name}. Name another --workdir."
            )
        logging.info("Going by %s; without it, all would be chosen anew.", file)
    else:
        config, reasons = choose(folder, overrides)
        with whole_file(file) as partial:
            partial.write_text(_as_file(config, reasons, file), encoding="utf-8")
        logging.info(
            "Chosen for %s:\n  - %s\nWritten to %s, to be edited.",
            *(folder, "\n  - ".join(reasons), file),
        )
    loop.train(config, workdir)
    return workdir


def choose(
    folder: pathlib.Path, overrides: Sequence[str]
) -> tuple[ConfigDict, list[str]]:
    """Return a configuration for a folder and this machine, and why, in sentences.

    Args:
      folder: The folder.
      overrides: Fields that are not chosen.

    Raises:
      ValueError: If the folder cannot be trained on, or a field is impossible.
      FileNotFoundError: If there are no folders of photographs and masks.
    """
    config = config_lib.base_config()
    assign(config, "model.variant", "tiny")
    for text in (f"data.name={FOLDER}", *overrides):
        apply(config, text)  # What is wrong with one is told at the end.
    assign(config, "data.folder", str(folder))
    choice = _Choice(config, {text.partition("=")[0] for text in overrides})
    remarks = (
        conventions.adopt(config.data)
        if conventions.is_open(config.data, overrides)
        else []
    )
    summary = _look(config.data, remarks)
    reasons = [
        *(f"{remark[0].upper()}{remark[1:]}" for remark in remarks),
        _choose_sizes(choice, summary),
        _choose_start(choice),
        _choose_length(choice, summary),
    ]
    config_lib.with_overrides(config, overrides, f"the configuration for {folder}")
    errors = [f.text for f in find(summary, config.data) if f.level == ERROR]
    if errors:
        raise ValueError(
            f"{folder} must be fit for a training: {' '.join(errors)} segnext-jax "
            "check shows it in full."
        )
    return config, reasons


class _Choice:
    """A configuration whose fields are chosen unless the user has set them."""

    def __init__(self, config: ConfigDict, given: set[str]):
        self.config, self._given = config, given
        self.devices = jax.devices()
        self.is_cpu = self.devices[0].platform == "cpu"

    def is_given(self, field: str) -> bool:
        return field in self._given

    def set(self, **fields: Any) -> None:
        """Set ``section__field``."""
        for name, value in fields.items():
            field = name.replace("__", ".")
            if not self.is_given(field):
                assign(self.config, field, value)


def _look(data: Any, remarks: Sequence[str]) -> Summary:
    target = open_target(data, remarks=remarks)
    places = conventions.evenly(len(target.pairs), _MAX_READ)
    pairs = [target.pairs[i] for i in places]
    found = inspect_all(pairs, target.masks, os.cpu_count() or 1)
    return summarize(target, list(followed(found, len(pairs), "look")))


def _choose_sizes(choice: _Choice, summary: Summary) -> str:
    """Choose crop, scale, batch and workers; return why."""
    config, devices = choice.config, choice.devices
    sizes = [size for split in summary.splits.values() for size in split.sizes]
    if not sizes:
        sizes = [(512, 512)]  # None could be read, which is an error.
    short, long = np.median([sorted(size) for size in sizes], axis=0)
    limit, largest_crop = (192, 96) if choice.is_cpu else (1024, 512)
    factor = min(1.0, limit / short)
    scale = round(long * factor), round(short * factor)
    side = min(largest_crop, max(32, int(scale[1]) // 32 * 32))
    choice.set(
        data__crop_size=(side, side), data__base_scale=scale, evaluation__scale=scale
    )
    height, width = config.data.crop_size
    memory = (devices[0].memory_stats() or {}).get("bytes_limit")
    per_image = height * width * _BYTES_PER_PIXEL[config.model.variant]
    fitting = int(_MEMORY_SHARE * memory / per_image) if memory else 8
    whole = -(-(8 if choice.is_cpu else 16) // len(devices))
    # A power of two at most.
    per_device = min(whole, 2 ** int(math.log2(max(1, fitting))))
    choice.set(
        batch_size=per_device * len(devices),
        evaluation__batch_size=max(1, 8 // len(devices)) * len(devices),
        evaluation__max_images=100 if choice.is_cpu else 1000,
        data__num_workers=0 if choice.is_cpu else min(4, os.cpu_count() or 1),
        data__num_threads=min(4, os.cpu_count() or 1),
    )
    machine = counted(len(devices), f"{devices[0].platform.upper()} device")
    if memory:
        machine += f" with {memory / 2**30:.0f} GiB"
    return (
        f"{sum(split.num_images for split in summary.splits.values()):,} photographs, "
        f"{long:.0f}x{short:.0f} in the median, on {machine}: fitted into "
        f"{config.data.base_scale[0]}x{config.data.base_scale[1]}, crops of "
        f"{height}x{width}, batch {config.batch_size}."
    )


def _choose_start(choice: _Choice) -> str:
    """Choose weights to start from, and how fast to leave them; return why."""
    config, reason = choice.config, "as you said"
    name = f"segnext-{config.model.variant}-ade20k"
    if not choice.is_given("init_from"):
        try:
            weights.find(name)
            assign(config, "init_from", name)
        except (ValueError, OSError) as error:
            logging.warning("%s", error)
            reason = f"{name} cannot be had"
    if config.init_from:
        return f"From the weights {config.init_from}: the paper's learning rate."
    choice.set(
        optimizer__learning_rate=3e-3,
        optimizer__head_lr_multiplier=1.0,
        model__drop_path_rate=0.0,
    )
    return (
        f"From random weights ({reason}): a high learning rate, "
        f"{config.optimizer.learning_rate}, and no drop path. Published weights would "
        "give a better network: config.init_from, docs/pretrained.md."
    )


def _choose_length(choice: _Choice, summary: Summary) -> str:
    """Choose steps, warm-up and evaluations; return why."""
    config = choice.config
    split = config.data.train_split or "train"
    pairs = [pair for pair in summary.target.pairs if pair.split == split]
    epochs, least, most = (100, 800, 2_000) if choice.is_cpu else (200, 4_000, 40_000)
    if not config.init_from and not choice.is_cpu:
        least, most = 2 * least, 2 * most
    steps = round(epochs * len(pairs) / max(1, config.batch_size) / 100) * 100
    choice.set(num_steps=min(most, max(least, steps)))
    every = max(1, config.num_steps // (2 if choice.is_cpu else 10))
    choice.set(
        optimizer__warmup_steps=config.num_steps // 10,
        eval_every=every,
        checkpoint_every=max(1, every // 2),
        log_every=20 if choice.is_cpu else 50,
    )
    passes = config.num_steps * config.batch_size / max(1, len(pairs))
    short = " (few, for a CPU: a first result)" if choice.is_cpu else ""
    return (
        f"{config.num_steps:,} steps{short}, each of {len(pairs):,} training "
        f"photographs {passes:.0f} times; an evaluation every {config.eval_every:,}."
    )


def _as_file(config: ConfigDict, reasons: Sequence[str], path: pathlib.Path) -> str:
    """Return a configuration as a file of ``configs/`` is written."""
    default = dict(flatten(config_lib.base_config()))
    settings = [
        f"    config.{name} = {value!r}"
        for name, value in flatten(config)
        if value != default[name]
    ]
    said = [
        textwrap.fill(reason, 88, initial_indent="# - ", subsequent_indent="#   ")
        for reason in reasons
    ]
    return (
        f'"""Chosen by segnext-jax train for the photographs of a folder.\n\n'
        f"    segnext-jax train --config={path}\n"
        '"""\n\nfrom segnext_jax.config import base_config\n\n'
        + "\n".join(said)
        + '\n\n\ndef get_config():\n    """Return the configuration."""\n'
        "    config = base_config()\n" + "\n".join(settings) + "\n    return config\n"
    )
