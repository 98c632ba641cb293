"""Convert checkpoints: `segnext-jax convert --checkpoint=FILE --output=DIR`, and back.

From a PyTorch, safetensors, NumPy or JSeg file to a model folder:

    segnext-jax convert --checkpoint=segnext_tiny_512x512_ade_160k.pth --output=tiny

From a model folder or a run's workdir to a file:

    segnext-jax convert --checkpoint=tiny --output=out.pth --dialect=mmseg1

Several runs, checkpoints or model folders become a model folder of their mean:

    segnext-jax convert --checkpoint runs/a/checkpoints/{8000,9000} --output=mean
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from segnext_jax import config as config_lib
from segnext_jax.cli import command, storage
from segnext_jax.cli.whole_files import naming
from segnext_jax.datasets.class_table import read_class_table

# Options for reading a file.
_OF_FILES = ("config", "dataset", "classes", "num_classes", "rank", "not_strict")


def main(arguments: Sequence[str]) -> None:
    """Convert one checkpoint; see `--help`.

    Raises:
      ValueError: If the checkpoint cannot be converted.
    """
    options = _parse(arguments)
    command.set_up_logging()
    sources = list(map(storage.as_path, options.checkpoint))
    target = storage.as_path(options.output)
    for source in sources:
        if not source.exists():
            raise ValueError(
                f"--checkpoint must name a file or folder: {source} is not there."
            )
    source = sources[0]
    if len(sources) > 1:
        _to_mean(sources, target, options)
    elif source.is_dir():
        _to_file(source, target, options)
    else:
        _to_folder(source, target, options)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command.Parser(
        "convert",
        "Convert SegNeXt checkpoints between PyTorch and JAX: a file to a model "
        "folder, a model folder or run to a file.",
        renamed=command.OVERWRITE | {"--from": "--checkpoint", "--to": "--output"},
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        nargs="+",
        help="a file (.pth, .pt, .safetensors, .pkl, .npz), or a model folder or run's "
        "workdir; several folders: their mean",
    )
    parser.add_argument(
        "--output", required=True, help="a new folder, or a new file of such a type"
    )
    command.add_which(parser)
    parser.add_argument(
        "--dialect",
        choices=("official", "mmseg1", "jseg"),
        help="names in the written file (default: official; jseg for .pkl)",
    )
    parser.add_argument(
        "--config",
        help="name of a shipped config, or a file, whose settings the folder keeps "
        "(default: the base config)",
    )
    known = parser.add_mutually_exclusive_group()
    known.add_argument("--dataset", help="data set whose classes the network knows")
    known.add_argument(
        "--classes",
        help="file of the network's classes, one name a line, with or without a colour "
        "(default: those that the checkpoint names)",
    )
    parser.add_argument("--num_classes", type=int, help="number of classes needed")
    parser.add_argument("--rank", type=int, help="number of bases of the Hamburger")
    parser.add_argument(
        "--not_strict",
        action="store_true",
        help="leave out arrays that do not fit, for a training to draw",
    )
    command.add_existing(parser)
    return parser.parse_args(arguments)


def _to_folder(
    source: pathlib.Path, target: pathlib.Path, options: argparse.Namespace
) -> None:
    from segnext_jax.convert import files, folder

    overwrite = options.existing == "overwrite"
    if files.suffix_of(target):
        raise ValueError(
            f"a file is converted to a folder, and a folder to a file: got {source} "
            f"and {target}. Convert to a folder first."
        )
    if options.dialect is not None:
        raise ValueError(
            f"--dialect is for writing files: {source} is read, and its dialect found "
            "by its names. Leave it out."
        )
    if options.which != "latest":
        raise ValueError(
            f"--which is for the checkpoints of a run: {source} is a file. Leave it "
            "out."
        )
    folder.check_target(target, overwrite)
    config = None if options.config is None else config_lib.load(options.config)
    classes = None
    if options.classes is not None:
        classes = read_class_table(pathlib.Path(options.classes))
    with storage.local(source) as copy, naming(source, copy):
        content = files.read(copy)
    converted, config, remarks = folder.convert(
        content,
        config=config,
        dataset=options.dataset,
        classes=classes,
        num_classes=options.num_classes,
        rank=options.rank,
        strict=not options.not_strict,
    )
    folder.write(target, converted.variables, config, overwrite=overwrite)
    _tell(*remarks)
    count = folder.num_parameters(converted.variables)
    _tell(f"wrote {target}: {count:,} parameters")


def _to_mean(
    sources: list[pathlib.Path], target: pathlib.Path, options: argparse.Namespace
) -> None:
    from segnext_jax.convert import averaging, files, folder

    overwrite = options.existing == "overwrite"
    if files.suffix_of(target):
        raise ValueError(
            f"the mean of checkpoints is written as a folder: got {target}. Convert it "
            "to a file afterwards."
        )
    _refuse(
        options,
        (*_OF_FILES, "dialect"),
        "for files: --checkpoint names several folders",
    )
    folder.check_target(target, overwrite)
    variables, models = averaging.average(sources, options.which)
    config = models[0].config
    assert config is not None  # Folders have one.
    folder.write(target, variables, config, overwrite=overwrite)
    _tell(*(f"mean of: {model}" for model in models))
    _tell(f"wrote {target}: {folder.num_parameters(variables):,} parameters")


def _to_file(
    source: pathlib.Path, target: pathlib.Path, options: argparse.Namespace
) -> None:
    from segnext_jax.checkpoints import reading
    from segnext_jax.convert import files, folder
    from segnext_jax.convert.weights import source_of, to_state_dict

    files.check_suffix(target)
    _refuse(options, _OF_FILES, f"for reading files: {source} is a folder")
    dialect = options.dialect or ("jseg" if target.suffix == ".pkl" else "official")
    stored = reading.read(source, options.which)
    assert stored.config is not None  # Folders have one.
    variables, config = stored.variables, stored.config
    state_dict = to_state_dict(variables, dialect)
    found = source_of(variables)
    assert found is not None  # to_state_dict has checked it.
    meta = folder.class_meta(found, config, dialect)
    overwrite = options.existing == "overwrite"
    files.write(target, state_dict, meta, overwrite=overwrite)
    _tell(f"found: {found}", f"weights: {stored}")
    if found.kind == "segmentation":
        rank = config.model.rank or found.variant.rank
        _tell(f"rank {rank}: set ham_kwargs=dict(MD_R={rank}) where it is loaded")
    _tell(f"wrote {target}: {len(state_dict)} arrays, {dialect} names")


def _refuse(options: argparse.Namespace, names: Sequence[str], reason: str) -> None:
    given = [f"--{name}" for name in names if getattr(options, name)]
    if given:
        raise ValueError(f"{', '.join(given)} are {reason}. Leave them out.")


def _tell(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
