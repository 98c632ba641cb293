"""Usual mistakes about classes: ids, names, what means nothing, what is rare."""

from collections.abc import Iterator
from typing import Any

import numpy as np

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
from segnext_jax.images.masks import NOTHING

# Shares above which something is said.
# Measured in nine data sets: up to 5 % after blurring, JPEG or enlarging by four, 33 %
# and more where a class is missing, poles and signs included.
_THIN_SHARE = 0.15
_DOMINANT_SHARE = 0.5
_RARE_SHARE = 0.01
_MIN_STRAY_IDS = 3
_GROUND = ("background", "ground", "void", "other")


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
        f"{counted(len(concerned), 'image')} ({few(names_of(concerned))})."
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
    yield Finding(ERROR, text, tuple(names_of(concerned)))


def _seen_classes(summary: Summary, data: Any) -> Iterator[Finding]:
    spec = summary.target.spec
    if spec is not None and spec.num_classes == 1:
        yield Finding(
            ERROR,
            f"there is one class only, {spec.classes[0]!r}: with it, every pixel is "
            "right and nothing is learnt. Add the rest as a class, for instance "
            "'background'.",
        )
    if spec is None or not summary.counts.sum():
        return
    counts, masks = summary.counts, summary.target.masks
    if not counts[: spec.num_classes].sum():
        if not any(fact.num_strays for fact in summary.facts):
            yield Finding(
                ERROR,
                "no pixel of any mask is labelled: all are 255 (ignored), and nothing "
                "can be learnt. Are config.data.zero_is_ignore and config.data.id_map "
                "right?",
            )
        return
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
    if masks.mask_values != "ids" or masks.id_map or not summary.target.is_folder:
        return
    if spec is None or not raw[:255].sum():
        return
    first = spec.classes[0]
    if masks.zero_is_ignore:
        # Names that count id 0 as well are one more than the ids from 1.
        if np.flatnonzero(raw[:255]).max() == spec.num_classes - 1 > 1:
            yield Finding(
                WARNING,
                f"the ids end at {spec.num_classes - 1}, and {spec.num_classes} names "
                f"are there for the ids from 1: does {first!r} name id 0? Then remove "
                "its line from classes.txt, or every name is moved by one.",
            )
    elif first.lower() in NOTHING and raw[0]:
        yield Finding(
            WARNING,
            f"id 0 is called {first!r} and is learnt as a class: if it means "
            "unlabelled, set config.data.zero_is_ignore=true and remove the line "
            f"{first!r} from classes.txt, so that its first name is that of id 1.",
        )
    elif first.lower() not in _GROUND and not raw[255]:
        share = raw[0] / raw.sum()
        if share > _DOMINANT_SHARE:
            yield Finding(
                WARNING,
                f"id 255 (ignored) is never seen, and id 0, {first!r}, covers "
                f"{share:.0%} of the pixels: if 0 means unlabelled, set "
                "config.data.zero_is_ignore=true; classes.txt must then begin with the "
                f"name of id 1: remove the line {first!r} if it names id 0.",
            )


def _uneven_splits(summary: Summary, data: Any) -> Iterator[Finding]:
    spec = summary.target.spec
    if spec is None:
        return
    train, val = (summary.splits.get(s) for s in (spec.train_split, spec.val_split))
    if train and val and train.num_images < val.num_images:
        yield Finding(
            WARNING,
            f"{spec.train_split} has {counted(train.num_images, 'photograph')} and "
            f"{spec.val_split} {val.num_images}: training usually gets the larger "
            "part. Are the two exchanged?",
        )


def _rare_classes(summary: Summary, data: Any) -> Iterator[Finding]:
    spec = summary.target.spec
    train = summary.splits.get(spec.train_split) if spec else None
    if train is None or spec is None or data.rare_class_temperature:
        return
    counts = train.counts[: spec.num_classes]
    shares = counts / max(counts.sum(), 1)
    limit = min(_RARE_SHARE, 0.1 / spec.num_classes)
    rare = [
        f"{spec.classes[i]} ({shares[i]:.2%})"
        for i in np.argsort(shares)
        if 0 < shares[i] < limit
    ]
    if rare:
        yield Finding(
            WARNING,
            f"{len(rare)} of {spec.num_classes} classes are rare in "
            f"{spec.train_split}, and a network may never learn them: {few(rare)}. "
            "config.data.rare_class_temperature=0.01 shows their photographs more "
            "often.",
        )


def _images_without_label(summary: Summary, data: Any) -> Iterator[Finding]:
    names = [n for split in summary.splits.values() for n in split.without_label]
    if names:
        yield Finding(
            WARNING,
            f"{counted(len(names), 'image')} without any label, all pixels ignored: "
            f"{few(names)}.",
            tuple(names),
        )


CLASS_RULES: tuple[Rule, ...] = (
    _stray_ids,
    _seen_classes,
    _zero_as_nothing,
    _uneven_splits,
    _rare_classes,
    _images_without_label,
)
