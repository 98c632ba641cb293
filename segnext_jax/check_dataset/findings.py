"""Usual mistakes, said in plain sentences."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from segnext_jax.check_dataset.inspection import Facts
from segnext_jax.check_dataset.summary import Summary
from segnext_jax.datasets.folder import few
from segnext_jax.pipeline.geometry import rescaled_size

ERROR, WARNING = "error", "warning"

# Shares above which something is said.
# Measured: 0.10 % (CamVid) and less in nine data sets; 0.28 % and more when masks of
# five of them were resized with interpolation or stored as JPEG.
_SPECKLE_SHARE = 0.0025
# Measured likewise: up to 5 % after blurring, JPEG or enlarging by four, 33 % and more
# where a class is missing, poles and signs included.
_THIN_SHARE = 0.15
_DOMINANT_SHARE = 0.5
_MIN_STRAY_IDS = 3
_MIN_MIXED_COLOURS = 24
_DARK_LEVEL = 10
_ENLARGED = 2.0
_GROUND = ("background", "ground", "void", "other")


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong, or may be.

    Attributes:
        level: "error": a training stops there, or its result means nothing;
            "warning": it may be meant so.
        text: One or two sentences.
        names: All that it concerns, where that are files or images.
    """

    level: str
    text: str
    names: tuple[str, ...] = ()


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
        text = f"{_count(len(faults), 'file')} cannot be used: "
        text += " | ".join(faults[:5])
        more = f" | and {len(faults) - 5} more (see the JSON report)"
        yield Finding(ERROR, text + more * (len(faults) > 5), tuple(faults))


def _colours_without_table(summary: Summary, data: Any) -> Iterator[Finding]:
    concerned = [fact for fact in summary.facts if fact.num_colours]
    if not concerned:
        return
    names = _names(concerned)
    colours: collections.Counter = collections.Counter()
    for fact in concerned:
        colours.update(fact.colours)
    shown = ", ".join(
        f"{colour} on {count} pixels" for colour, count in colours.most_common(8)
    )
    num_colours = max(len(colours), max(fact.num_colours for fact in concerned))
    if summary.target.masks.mask_values == "colours":
        text = (
            f"{_count(len(concerned), 'mask')} with {_count(num_colours, 'colour')} "
            f"that the table does not have: {shown} (first: {few(names)}). Add to "
            "classes.txt what they mean, a class or ignore, or correct the masks."
        )
    else:
        text = (
            f"{_count(len(concerned), 'mask')} of colours, not of ids, with "
            f"{_count(num_colours, 'colour')}: {shown} (first: {few(names)}). Write "
            'each class with its colour into classes.txt, as "road 128 64 128", and '
            'set config.data.mask_values to "colours".'
        )
    if num_colours >= _MIN_MIXED_COLOURS:
        text += (
            " So many colours are a sign of masks that were compressed as JPEG, "
            "anti-aliased or resized with interpolation: export them anew without."
        )
    yield Finding(ERROR, text, tuple(names))


def _stray_ids(summary: Summary, data: Any) -> Iterator[Finding]:
    concerned = [fact for fact in summary.facts if fact.num_strays]
    if not concerned or summary.target.spec is None:
        return
    spec, masks = summary.target.spec, summary.target.masks
    num_classes = spec.num_classes
    seen = set(np.flatnonzero(summary.raw_counts).tolist())
    stray = [
        i
        for i in sorted(seen)
        if masks.train_ids[i] != 255 and not 0 <= masks.train_ids[i] < num_classes
    ]
    num_strays = sum(fact.num_strays for fact in concerned)
    share = num_strays / summary.raw_counts.sum()
    text = (
        f"ids of masks must lie in 0..{num_classes - 1} or be 255 (ignored): found "
        f"{few(list(map(str, stray)))} on {share:.2%} of the pixels, in "
        f"{_count(len(concerned), 'image')} ({few(_names(concerned))})."
    )
    inner = sum(fact.num_inner_strays for fact in concerned)
    lowest = min(seen)
    is_plain = not masks.zero_is_ignore and not masks.id_map
    if is_plain and stray == [num_classes]:
        text += (
            f" Ids {lowest}..{num_classes} seen with {num_classes} classes: did you "
            "mean config.data.zero_is_ignore=true?"
        )
        if lowest == 0:
            text += (
                f" Or, if {num_classes} is what means unlabelled, map it to 255 with "
                "config.data.id_map."
            )
    elif len(stray) >= _MIN_STRAY_IDS and inner / num_strays < _THIN_SHARE:
        text += (
            " They lie on boundaries only: the masks were anti-aliased, resized with "
            "interpolation or compressed as JPEG. Export them anew without."
        )
    elif summary.target.is_folder:
        text += (
            " Add the missing classes to classes.txt, or say with config.data.id_map "
            "what each id means."
        )
    yield Finding(ERROR, text, tuple(_names(concerned)))


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
            f"compressed as JPEG? Look at {few(_names(worst[:5]))}.",
        )


def _seen_classes(summary: Summary, data: Any) -> Iterator[Finding]:
    spec = summary.target.spec
    if spec is None or not summary.counts.sum():
        return
    counts, masks = summary.counts, summary.target.masks
    seen = np.flatnonzero(counts[: spec.num_classes])
    is_binary = set(np.flatnonzero(summary.raw_counts).tolist()) == {0, 255}
    is_plain = masks.mask_values == "ids" and not masks.id_map
    if is_binary and is_plain and spec.num_classes == 2:
        yield Finding(
            ERROR,
            "the masks hold 0 and 255 only, and 255 is ignored: if it is the second "
            "class, set config.data.id_map to ((0, 0), (255, 1)).",
        )
    elif len(seen) == 1 and spec.num_classes > 1:
        yield Finding(
            WARNING,
            f"only one class occurs, {spec.classes[seen[0]]!r}: a network learns "
            "nothing from it.",
        )
    if missing := [spec.classes[i] for i in range(spec.num_classes) if not counts[i]]:
        yield Finding(
            WARNING,
            f"{len(missing)} of {spec.num_classes} classes never occur: "
            f"{few(missing)}.",
            tuple(missing),
        )
    train = summary.splits.get(spec.train_split)
    for name, split in summary.splits.items():
        if train is None or split is train:
            continue
        if new := [
            spec.classes[i]
            for i in range(spec.num_classes)
            if split.counts[i] and not train.counts[i]
        ]:
            yield Finding(
                WARNING,
                f"classes of {name} that {spec.train_split} never shows cannot be "
                f"learnt: {few(new)}.",
                tuple(new),
            )


def _zero_as_nothing(summary: Summary, data: Any) -> Iterator[Finding]:
    spec, raw, masks = summary.target.spec, summary.raw_counts, summary.target.masks
    if masks.mask_values != "ids" or masks.zero_is_ignore or masks.id_map:
        return
    if spec is None or spec.classes[0].lower() in _GROUND or not raw.sum():
        return
    share = raw[0] / raw.sum()
    if summary.target.is_folder and not raw[255] and share > _DOMINANT_SHARE:
        yield Finding(
            WARNING,
            f"id 255 (ignored) is never seen, and id 0, {spec.classes[0]!r}, covers "
            f"{share:.0%} of the pixels: if 0 means unlabelled, set "
            "config.data.zero_is_ignore=true.",
        )


def _images_without_label(summary: Summary, data: Any) -> Iterator[Finding]:
    names = [n for split in summary.splits.values() for n in split.without_label]
    if names:
        yield Finding(
            WARNING,
            f"{_count(len(names), 'image')} without any label, all pixels ignored: "
            f"{few(names)}.",
            tuple(names),
        )


def _duplicates(summary: Summary, data: Any) -> Iterator[Finding]:
    within, between = [], []
    for group in summary.duplicates:
        text = " = ".join(_names(group))
        (between if len({fact.split for fact in group}) > 1 else within).append(text)
    if between:
        yield Finding(
            ERROR,
            f"{_count(len(between), 'photograph')} in several splits, so that "
            f"evaluation counts what was learnt by heart: {few(between)}. Remove them "
            "from one.",
            tuple(between),
        )
    if within:
        yield Finding(
            WARNING,
            f"{_count(len(within), 'photograph')} several times in a split: "
            f"{few(within)}.",
            tuple(within),
        )


def _turned_photographs(summary: Summary, data: Any) -> Iterator[Finding]:
    turned = [fact for fact in summary.facts if fact.orientation != 1]
    if turned:
        yield Finding(
            WARNING,
            f"{_count(len(turned), 'photograph')} with an EXIF orientation, which is "
            "applied: the masks must be drawn on the turned photographs. Look whether "
            f"they fit: {few(_names(turned))}.",
            tuple(_names(turned)),
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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _names(facts: Sequence[Facts]) -> list[str]:
    return [fact.name for fact in facts]


_RULES: tuple[Callable[[Summary, Any], Iterator[Finding]], ...] = (
    _unusable_files,
    _colours_without_table,
    _stray_ids,
    _seen_classes,
    _zero_as_nothing,
    _speckled_masks,
    _images_without_label,
    _duplicates,
    _turned_photographs,
    _small_photographs,
    _dark_photographs,
)
