"""Convert checkpoints: `python -m segnext_jax.convert --from FILE --to DIR`, and back.

From a PyTorch, safetensors, NumPy or JSeg file to a model folder:

    python -m segnext_jax.convert --from segnext_tiny_512x512_ade_160k.pth --to tiny

From a model folder or a run's workdir to a file:

    python -m segnext_jax.convert --from tiny --to out.pth --dialect mmseg1

Several runs, checkpoints or model folders become a model folder of their mean:

    python -m segnext_jax.convert --from runs/a/checkpoints/{8000,9000} --to mean
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import reading
from segnext_jax.cli import command
from segnext_jax.convert import averaging, files, folder
from segnext_jax.convert.names import HAS_BATCH_COUNT
from segnext_jax.convert.weights import source_of, to_state_dict

# Options for reading a file.
_OF_FILES = ("config", "dataset", "num_classes", "rank", "not_strict")


def main(arguments: Sequence[str]) -> None:
    """Convert one checkpoint; see `--help`.

    Raises:
      ValueError: If it cannot be.
    """
    options = _parse(arguments)
    command.set_up_logging()
    sources, target = (
        list(map(pathlib.Path, options.source)),
        pathlib.Path(options.target),
    )
    for source in sources:
        if not source.exists():
            raise ValueError(
                f"--from must name a file or folder: {source} is not there."
            )
    source = sources[0]
    if len(sources) > 1:
        _to_mean(sources, target, options)
    elif source.is_dir():
        _to_file(source, target, options)
    else:
        _to_folder(source, target, options)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m segnext_jax.convert",
        description="Convert SegNeXt checkpoints between PyTorch and JAX.",
        allow_abbrev=False,
    )
    suffixes = ", ".join(files.SUFFIXES)
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        nargs="+",
        help=f"a file ({suffixes}), or a model folder or run's workdir; several "
        "folders: their mean",
    )
    parser.add_argument(
        "--to", dest="target", required=True, help="a new folder, or a new file"
    )
    command.add_which(parser)
    parser.add_argument(
        "--dialect",
        choices=tuple(HAS_BATCH_COUNT),
        help="names in the written file (default: official; jseg for .pkl)",
    )
    parser.add_argument(
        "--config",
        help="config file whose settings the folder keeps (default: the base config)",
    )
    parser.add_argument("--dataset", help="data set whose classes the network knows")
    parser.add_argument("--num_classes", type=int, help="number of classes needed")
    parser.add_argument("--rank", type=int, help="number of bases of the Hamburger")
    parser.add_argument(
        "--not_strict",
        action="store_true",
        help="leave out arrays that do not fit, for a training to draw",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing file or model"
    )
    return parser.parse_args(arguments)


def _to_folder(
    source: pathlib.Path, target: pathlib.Path, options: argparse.Namespace
) -> None:
    if target.suffix in files.SUFFIXES:
        raise ValueError(
            f"a file is converted to a folder, and a folder to a file: got {source} "
            f"and {target}. Convert to a folder first."
        )
    if options.dialect is not None:
        raise ValueError(
            f"--dialect is for writing files: {source} is read, and its dialect found "
            "by its names. Leave it out."
        )
    if options.which != reading.LATEST:
        raise ValueError(
            f"--which is for the checkpoints of a run: {source} is a file. Leave it "
            "out."
        )
    folder.check_target(target, options.overwrite)
    config = None if options.config is None else config_lib.load(options.config)
    dataset = options.dataset
    if dataset is None and config is not None:
        dataset = config.data.name
    converted, config, remarks = folder.convert(
        files.read(source),
        config=config,
        dataset=dataset,
        num_classes=options.num_classes,
        rank=options.rank,
        strict=not options.not_strict,
    )
    folder.write(target, converted.variables, config, overwrite=options.overwrite)
    _tell(*remarks)
    count = folder.num_parameters(converted.variables)
    _tell(f"wrote {target}: {count:,} parameters")


def _to_mean(
    sources: list[pathlib.Path], target: pathlib.Path, options: argparse.Namespace
) -> None:
    if target.suffix in files.SUFFIXES:
        raise ValueError(
            f"the mean of checkpoints is written as a folder: got {target}. Convert it "
            "to a file afterwards."
        )
    _refuse(options, (*_OF_FILES, "dialect"), "for files: --from names several folders")
    folder.check_target(target, options.overwrite)
    variables, models = averaging.average(sources, options.which)
    config = models[0].config
    assert config is not None  # Folders have one.
    folder.write(target, variables, config, overwrite=options.overwrite)
    _tell(*(f"mean of: {model}" for model in models))
    _tell(f"wrote {target}: {folder.num_parameters(variables):,} parameters")


def _to_file(
    source: pathlib.Path, target: pathlib.Path, options: argparse.Namespace
) -> None:
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
    files.write(target, state_dict, meta, overwrite=options.overwrite)
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
