"""Model folders (orbax parameters and configuration) from checkpoint files and back."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import model_folder
from segnext_jax.config.kinds import COLOURS, several, text, tuples
from segnext_jax.convert.detect import Source
from segnext_jax.convert.weights import Converted, Variables, from_state_dict
from segnext_jax.datasets import SPECS, DatasetSpec, get_spec
from segnext_jax.datasets.class_table import ClassTable
from segnext_jax.datasets.resolve import FOLDER, resolve_spec
from segnext_jax.datasets.spec import Colour

_NAMES = several(text(), "names")
PARTIAL = (
    "this is no whole network: use the folder as config.init_from of a training, which "
    "draws the rest"
)


def convert(
    content: Mapping[str, Any],
    *,
    config: ConfigDict | None = None,
    dataset: str | None = None,
    classes: ClassTable | None = None,
    num_classes: int | None = None,
    rank: int | None = None,
    strict: bool = True,
) -> tuple[Converted, ConfigDict, list[str]]:
    """Return a checkpoint's variables, a configuration for them, and remarks.

    Args:
      content: What `files.read` returns.
      config: The configuration to start from. None: `config.base_config`.
      dataset: Key of `SPECS` whose classes the network knows. None: those of the
        configuration if it is given, of ``classes``, or found in the file.
      classes: The network's own classes. None: the file's, a data set's that has as
        many, or ``class 0`` and so on.
      num_classes: Number of classes that is needed. None: the data set's or file's.
      rank: Number of bases. None: that of the dialect's own configs.
      strict: See `from_state_dict`; if not, arrays that do not fit are left out.

    Raises:
      ValueError: If the checkpoint does not fit (see `from_state_dict`), the number of
        classes is not the network's, or the configuration is of another variant.
    """
    spec = None
    if dataset is not None:
        spec = get_spec(dataset)
    elif classes is None and config is not None:
        spec = resolve_spec(config.data)
    if spec is not None:
        num_classes = num_classes or spec.num_classes
    converted = from_state_dict(content, num_classes=num_classes, strict=strict)
    source = converted.source
    remarks = [f"found: {source}", str(converted.summary)]
    if source.variant_name is None:
        raise ValueError(
            f"a model folder needs a published network: the checkpoint is {source}."
        )
    if config is None:
        config = config_lib.base_config()
        config.model.variant = source.variant_name
    elif config.model.variant != source.variant_name:
        raise ValueError(
            "the configuration must be of the checkpoint's variant: "
            f"config.model.variant is {config.model.variant!r}, the checkpoint is "
            f"{source}. Take the config file of that variant."
        )
    if source.kind != "segmentation":
        remarks.append(PARTIAL)
        return converted, config, remarks

    if rank is None:
        rank = source.variant.rank
        remarks.append(
            f"rank {rank}, as in the configs of that code: the weights do not tell "
            "(--rank sets it)"
        )
    config.model.rank = rank
    if source.dialect == "mmseg1":
        config.evaluation.alignment = "pad"
        remarks.append("images are padded, as in the configs of that code")
    count = num_classes or source.num_classes
    if spec is not None:
        _check_count(spec.name, spec.num_classes, count)
        remark = f"classes: {spec.name}"
    elif classes is not None:
        _check_count("the file of classes", len(classes.classes), count)
        spec = classes.spec(FOLDER)
        remark = f"classes: {', '.join(spec.classes)}"
    else:
        spec, remark = _find_spec(content, count)
    config.data.name = spec.name
    if spec.name not in SPECS:
        # The folder then knows its classes on other machines, too.
        config.data.classes, config.data.colours = spec.classes, spec.colours
    remarks.append(remark)
    if converted.summary.missing or converted.summary.reshaped:
        remarks.append(PARTIAL)
    return converted, config, remarks


def _check_count(whose: str, given: int, wanted: int | None) -> None:
    if given != wanted:
        raise ValueError(
            f"there must be as many classes as the network has, {wanted}: {whose} has "
            f"{given}. Name another (--dataset, --classes)."
        )


def _find_spec(
    content: Mapping[str, Any], num_classes: int | None
) -> tuple[DatasetSpec, str]:
    """Return the classes that a file names or their number tells, and how."""
    names, palette = _class_meta(content)
    fitting = [spec for spec in SPECS.values() if spec.num_classes == num_classes]
    for spec in fitting:
        if [n.lower() for n in names] == [n.lower() for n in spec.classes]:
            return spec, f"classes: {spec.name}, as named in the file"
    if len(names) == num_classes:
        table = ClassTable(names, palette if len(palette) == num_classes else ())
        return table.spec(FOLDER), f"classes: {', '.join(names)}, as named in the file"
    if len(fitting) == 1:
        (spec,) = fitting
        return spec, f"classes: {spec.name}, by their number (--dataset names another)"
    assert num_classes is not None
    logging.warning(
        "The checkpoint names no classes: they are called class 0 to class %d. Pass "
        "--classes=FILE, one name a line, or --dataset.",
        num_classes - 1,
    )
    names = tuple(f"class {number}" for number in range(num_classes))
    remark = f"classes: {names[0]} to {names[-1]}, without names"
    return ClassTable(names).spec(FOLDER), remark


def _class_meta(
    content: Mapping[str, Any],
) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
    """Return the names and colours that mmsegmentation stores in a file.

    What is no list of names or of colours says nothing.
    """
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    nested = meta.get("dataset_meta")
    nested = nested if isinstance(nested, Mapping) else {}
    names = tuples(meta.get("CLASSES", nested.get("classes")))
    colours = tuples(meta.get("PALETTE", nested.get("palette")))
    return (
        names if _NAMES.accepts(names) else (),
        colours if COLOURS.accepts(colours) else (),
    )


def check_target(path: pathlib.Path, overwrite: bool) -> None:
    """Refuse a target that holds anything but an old model folder to overwrite.

    Raises:
      ValueError: If the target holds other files, or a model and not ``overwrite``.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not model_folder.is_model(path):
        raise ValueError(
            f"the folder to write must be new or empty: {path} holds other files. Name "
            "another."
        )
    if not overwrite:
        raise ValueError(
            f"the folder to write must be new: {path} holds a model. Name another, or "
            "pass --existing=overwrite."
        )


def write(
    path: pathlib.Path,
    variables: Variables,
    config: ConfigDict,
    *,
    overwrite: bool = False,
) -> None:
    """Write a model folder; whole or not at all.

    Raises:
      ValueError: If the target may not be written; see `check_target`.
    """
    check_target(path, overwrite)
    json_text = config_lib.to_json(config)
    model_folder.save_model(path, variables, json_text, overwrite=True)


def class_meta(source: Source, config: ConfigDict, dialect: str) -> dict[str, Any]:
    """Return what the dialect's framework stores of the classes beside the weights."""
    if source.kind != "segmentation":
        return {}
    spec = resolve_spec(config.data)
    classes, palette = list(spec.classes), [list(c) for c in spec.colours]
    if dialect == "mmseg1":
        return {"dataset_meta": {"classes": classes, "palette": palette}}
    return {"CLASSES": classes, "PALETTE": palette}


def num_parameters(variables: Variables) -> int:
    """Return the number of trainable values."""
    return sum(np.size(leaf) for leaf in jax.tree.leaves(variables["params"]))
