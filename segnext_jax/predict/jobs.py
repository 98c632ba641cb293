"""Which files each input leads to, checked before anything is computed."""

import dataclasses
import pathlib
from collections.abc import Sequence

from segnext_jax.datasets import DatasetSpec
from segnext_jax.predict import benchmark_formats, files
from segnext_jax.predict.benchmark_formats import FORMATS as BENCHMARK_FORMATS
from segnext_jax.predict.files import FileOptions
from segnext_jax.predict.inputs import Input

FORMATS = (*files.SUFFIXES, *BENCHMARK_FORMATS)
EXISTING = ("error", "skip", "overwrite")
PICTURES = ("overlay", "side_by_side")
_VIDEO_SUFFIX = ".mp4"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is written of each input, and where.

    Attributes:
      output: Folder in which each format has its own.
      formats: Names of formats, among `FORMATS`.
      existing: What to do about outputs that exist: one of `EXISTING`.
      batch_size: How many images go through the network at once, at most.
      files: How files are written.
      num_threads: Threads that read and decode, and that encode and write.
    """

    output: pathlib.Path
    formats: tuple[str, ...] = ("labels", "overlay")
    existing: str = "error"
    batch_size: int = 8
    files: FileOptions = FileOptions()  # noqa: RUF009 (it is frozen)
    num_threads: int = 2

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
          ValueError: If an option is impossible.
        """
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise ValueError(
                f"--format must be some of {', '.join(FORMATS)}, separated by commas: "
                f"got {', '.join(unknown) or 'none'}."
            )
        if self.existing not in EXISTING:
            raise ValueError(
                f"--existing must be one of {', '.join(EXISTING)}: got "
                f"{self.existing!r}."
            )
        if self.batch_size < 1:
            raise ValueError(f"--batch_size must be at least 1: got {self.batch_size}.")

    @property
    def folders(self) -> list[pathlib.Path]:
        """Folders of all formats, those of other runs included."""
        return [self.output / name for name in FORMATS]

    @property
    def has_probabilities(self) -> bool:
        """Whether a format needs them."""
        return "probabilities" in self.formats


@dataclasses.dataclass(frozen=True)
class Job:
    """One input and its outputs.

    Attributes:
      input: The file.
      paths: Output of each format that is to be written; of a video a folder of
        frames, but for pictures.
      done: Outputs that exist already and are left as they are.
    """

    input: Input
    paths: dict[str, pathlib.Path]
    done: dict[str, pathlib.Path]

    def all_paths(self, name: str) -> list[pathlib.Path]:
        """Return the outputs of one format, there already or not."""
        return [paths[name] for paths in (self.done, self.paths) if name in paths]


def plan(inputs: Sequence[Input], options: Options, spec: DatasetSpec) -> list[Job]:
    """Return a job for each input.

    Raises:
      ValueError: If a format does not fit the network or an input, two inputs would
        have the same output, an output would replace an input, or an output exists
        already.
    """
    for name in options.formats:
        if name in BENCHMARK_FORMATS:
            _check_no_video(name, inputs)
            benchmark_formats.check(name, spec, [item.name for item in inputs])
    input_paths = {item.path.resolve() for item in inputs}
    owners: dict[pathlib.Path, Input] = {}
    jobs = []
    for item in inputs:
        paths = {name: _path(name, item, options) for name in options.formats}
        for path in paths.values():
            if path.resolve() in input_paths:
                raise ValueError(
                    f"outputs must not replace inputs: {path} is one. Choose another "
                    "--output."
                )
            other = owners.setdefault(path, item)
            if other is not item:
                raise ValueError(
                    f"each output must have one input: {path} would come from both "
                    f"{other.path} and {item.path}. {_advice(other, item)}"
                )
        done = {name: path for name, path in paths.items() if path.exists()}
        if done and options.existing == "error":
            raise ValueError(
                f"outputs must be new: {next(iter(done.values()))} exists. Choose "
                "--existing=skip (to go on) or overwrite, or another --output."
            )
        if options.existing == "overwrite":
            done = {}
        wanted = {name: path for name, path in paths.items() if name not in done}
        jobs.append(Job(item, wanted, done))
    return jobs


def _advice(one: Input, other: Input) -> str:
    if one.path.parent != other.path.parent:
        return "Give the folder above them, or predict them into different folders."
    patterns = (f"'{item.path.parent}/*{item.path.suffix}'" for item in (one, other))
    return (
        f"Rename one, or predict {' and '.join(patterns)} into different --output "
        "folders."
    )


def _check_no_video(name: str, inputs: Sequence[Input]) -> None:
    videos = [item.path for item in inputs if item.is_video]
    if videos:
        raise ValueError(
            f"--format={name} is for images: got the video {videos[0]}. Use "
            f"{', '.join(files.SUFFIXES)} for videos."
        )


def _path(name: str, item: Input, options: Options) -> pathlib.Path:
    folder = options.output / name
    if name in BENCHMARK_FORMATS:
        return folder / BENCHMARK_FORMATS[name].relative_path(item.name)
    if not item.is_video:
        # Not with_suffix: what follows a point in a name is a part of it.
        suffix = files.SUFFIXES[name]
    else:
        suffix = _VIDEO_SUFFIX if name in PICTURES else ""
    return folder / item.name.with_name(item.name.name + suffix)
