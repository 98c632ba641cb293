"""Usual mistakes, said in plain sentences."""

import collections
from collections.abc import Iterator
from typing import Any

import numpy as np

from segnext_jax.check_dataset.class_findings import CLASS_RULES
from segnext_jax.check_dataset.finding import (
    ERROR,
    WARNING,
    Finding,
    Rule,
    names_of,
)
from segnext_jax.check_dataset.summary import Summary
from segnext_jax.cli.command import counted
from segnext_jax.datasets.folder import few
from segnext_jax.pipeline.geometry import rescaled_size

# Shares above which something is said.
# Measured: 0.10 % (CamVid) and less in nine data sets; 0.28 % and more when masks of
# five of them were resized with interpolation or stored as JPEG.
_SPECKLE_SHARE = 0.0025
_MIN_MIXED_COLOURS = 24
_DARK_LEVEL = 10
_ENLARGED = 2.0


def find(summary: Summary, data: Any) -> list[Finding]:
    """Return what is wrong with a data set, errors first.

    Args:
      summary: What it holds.
      data: The section `data` of the configuration it is to be used with.
    """
    findings = [Finding(ERROR, fault) for fault in summary.target.faults]
    for rule in _RULES:
        findings.extend(rule(summary, data))
    return sorted(findings, key=lambda finding: finding.level)


def _unusable_files(summary: Summary, data: Any) -> Iterator[Finding]:
    faults = [fault for fact in summary.facts for fault in fact.faults]
    if faults:
        text = f"{counted(len(faults), 'file')} cannot be used: "
        text += " | ".join(faults[:5])
        more = f" | and {len(faults) - 5} more (see the JSON report)"
        yield Finding(ERROR, text + more * (len(faults) > 5), tuple(faults))


def _colours_without_table(summary: Summary, data: Any) -> Iterator[Finding]:
    concerned = [fact for fact in summary.facts if fact.num_colours]
    if not concerned:
        return
    names = names_of(concerned)
    colours: collections.Counter = collections.Counter()
    for fact in concerned:
        colours.update(fact.colours)
    shown = ", ".join(
        f"{colour} on {count} pixels" for colour, count in colours.most_common(8)
    )
    num_colours = max(len(colours), max(fact.num_colours for fact in concerned))
    if summary.target.masks.mask_values == "colours":
        text = (
            f"{counted(len(concerned), 'mask')} with {counted(num_colours, 'colour')} "
            f"that the table does not have: {shown} (first: {few(names)}). Add to "
            "classes.txt what they mean, a class or ignore, or correct the masks."
        )
    else:
        text = (
            f"{counted(len(concerned), 'mask')} of colours, not of ids, with "
            f"{counted(num_colours, 'colour')}: {shown} (first: {few(names)}). Write "
            'each class with its colour into classes.txt, as "road 128 64 128", and '
            'set config.data.mask_values to "colours".'
        )
    if num_colours >= _MIN_MIXED_COLOURS:
        text += (
            " So many colours are a sign of masks that were compressed as JPEG, "
            "anti-aliased or resized with interpolation: export them anew without."
        )
    yield Finding(ERROR, text, tuple(names))


def _speckled_masks(summary: Summary, data: Any) -> Iterator[Finding]:
    if any(fact.num_strays for fact in summary.facts):
        return  # The strays tell it already.
    speckles = sum(fact.num_speckles for fact in summary.facts)
    labelled = summary.raw_counts[:255].sum()
    if labelled and speckles / labelled > _SPECKLE_SHARE:
        worst = sorted(summary.facts, key=lambda fact: -fact.num_speckles)
        yield Finding(
            WARNING,
            f"{speckles / labelled:.2%} of the labelled pixels differ from all their "
            "neighbours: were the masks anti-aliased, resized with interpolation or "
            f"compressed as JPEG? Look at {few(names_of(worst[:5]))}.",
        )


def _duplicates(summary: Summary, data: Any) -> Iterator[Finding]:
    within, between = [], []
    for group in summary.duplicates:
        text = " = ".join(names_of(group))
        (between if len({fact.split for fact in group}) > 1 else within).append(text)
    if between:
        yield Finding(
            ERROR,
            f"{counted(len(between), 'photograph')} in several splits, so that "
            f"evaluation counts what was learnt by heart: {few(between)}. Remove them "
            "from one.",
            tuple(between),
        )
    if within:
        yield Finding(
            WARNING,
            f"{counted(len(within), 'photograph')} several times in a split: "
            f"{few(within)}.",
            tuple(within),
        )


def _turned_photographs(summary: Summary, data: Any) -> Iterator[Finding]:
    turned = [fact for fact in summary.facts if fact.orientation != 1]
    if turned:
        yield Finding(
            WARNING,
            f"{counted(len(turned), 'photograph')} with an EXIF orientation, which is "
            "applied: the masks must be drawn on the turned photographs. Look whether "
            f"they fit: {few(names_of(turned))}.",
            tuple(names_of(turned)),
        )


def _small_photographs(summary: Summary, data: Any) -> Iterator[Finding]:
    sizes = [fact.size for fact in summary.facts if fact.size is not None]
    if not sizes:
        return
    factors = [rescaled_size(size, data.base_scale)[0] / size[0] for size in sizes]
    median = float(np.median(factors))
    if median > _ENLARGED:
        yield Finding(
            WARNING,
            f"config.data.base_scale={data.base_scale} enlarges the photographs, by "
            f"{median:.1f} in the median: set it, (long side, short side), near their "
            "own size, and config.data.crop_size and config.evaluation.scale to match.",
        )
    height, width = data.crop_size
    padded = [
        size
        for size in (rescaled_size(size, data.base_scale) for size in sizes)
        if size[0] * 2 <= height or size[1] * 2 <= width
    ]
    if len(padded) > len(sizes) / 2:
        yield Finding(
            WARNING,
            f"{len(padded)} of {len(sizes)} photographs fill less than half of the "
            f"crop, {height}x{width}, at scale 1: lower config.data.crop_size or raise "
            "config.data.base_scale.",
        )


def _dark_photographs(summary: Summary, data: Any) -> Iterator[Finding]:
    if any(summary.std) and max(summary.mean) < _DARK_LEVEL:
        yield Finding(
            WARNING,
            f"the photographs are nearly black, mean {max(summary.mean):.1f} of 255: "
            "16-bit files that use few of their bits? Stretch them to the full range.",
        )


_RULES: tuple[Rule, ...] = (
    _unusable_files,
    _colours_without_table,
    *CLASS_RULES,
    _speckled_masks,
    _duplicates,
    _turned_photographs,
    _small_photographs,
    _dark_photographs,
)
