"""Which files each input leads to, checked before anything is computed.

The inputs of a list are never all at hand: they are checked by parts.
"""

import concurrent.futures
import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from segnext_jax.cli import storage
from segnext_jax.cli.command import num_cores
from segnext_jax.datasets import DatasetSpec
from segnext_jax.predict import benchmark_formats, files
from segnext_jax.predict.benchmark_formats import FORMATS as BENCHMARK_FORMATS
from segnext_jax.predict.files import FileOptions
from segnext_jax.predict.inputs import Input

TABLE = "table"
FORMATS = (*files.SUFFIXES, TABLE, *BENCHMARK_FORMATS)
CONTAINERS = ("files", "tar")
EXISTING = ("error", "skip", "overwrite")
PICTURES = ("overlay", "side_by_side")
_VIDEO_SUFFIX = ".mp4"
# How many outputs a bucket is asked for at once: the answer takes its time.
_NUM_QUESTIONS = 32


@dataclasses.dataclass(frozen=True)
class Options:
    """What is written of each input, and where.

    Attributes:
      output: Folder in which each format has its own.
      formats: Names of formats, among `FORMATS`.
      existing: What to do about outputs that exist: one of `EXISTING`.
      batch_size: How many images go through the network at once, at most, on each
        device.
      files: How files are written.
      container: Where formats are written: one of `CONTAINERS`.
      shard: (number, count): every ``count``-th input, from ``number``.
      is_list: Whether the inputs come from a list, and are never all at hand.
      part_size: Inputs of a part: see `segnext_jax.predict.shards`.
      num_threads: Threads that read and decode, and that encode and write.
    """

    output: pathlib.Path
    formats: tuple[str, ...] = ("labels", "overlay")
    existing: str = "error"
    batch_size: int = 8
    files: FileOptions = FileOptions()  # noqa: RUF009 (it is frozen)
    container: str = "files"
    shard: tuple[int, int] = (0, 1)
    is_list: bool = False
    part_size: int = 1_000
    num_threads: int = num_cores()

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
        if self.container not in CONTAINERS:
            raise ValueError(
                f"--container must be one of {', '.join(CONTAINERS)}: got "
                f"{self.container!r}."
            )
        for name in ("batch_size", "part_size"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"--{name} must be at least 1: got {getattr(self, name)}."
                )
        number, count = self.shard
        if not 0 <= number < count:
            raise ValueError(
                f"--shard must be I/N with I from 0 to N - 1: got {number}/{count}."
            )

    @property
    def folders(self) -> list[pathlib.Path]:
        """Folders of all formats, those of other runs included."""
        return [self.output / name for name in (*FORMATS, "tar", "manifests")]

    @property
    def has_table(self) -> bool:
        """Whether areas and errors are written as a table."""
        return TABLE in self.formats

    @property
    def has_part_files(self) -> bool:
        """Whether there are files that hold the outputs of a part."""
        return self.has_table or self.container == "tar"

    @property
    def has_manifest(self) -> bool:
        """Whether the outputs are parts, which a manifest lists."""
        return self.has_part_files or self.is_list or self.shard[1] > 1

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
        frames, but for pictures. Where a tar takes the outputs, they only tell formats.
      done: Outputs that exist already and are left as they are.
      part: Number of the part that it belongs to.
    """

    input: Input
    paths: dict[str, pathlib.Path]
    done: dict[str, pathlib.Path]
    part: int = 0

    def all_paths(self, name: str) -> list[pathlib.Path]:
        """Return the outputs of one format, there already or not."""
        return [paths[name] for paths in (self.done, self.paths) if name in paths]


def plan(
    inputs: Sequence[Input] | Iterable[Input], options: Options, spec: DatasetSpec
) -> Iterator[list[Job]]:
    """Yield the jobs of each part.

    Inputs that are at hand are checked as a whole before the first part; those of a
    list part by part.

    Args:
      inputs: All inputs, of all shards.
      options: What is written.
      spec: Classes of the network.

    Raises:
      ValueError: If a format does not fit the network or an input, two inputs would
        have the same output, an output would replace an input, or an output exists
        already.
    """
    if isinstance(inputs, Sequence):
        _check(inputs, options, spec)
    number, count = options.shard
    mine = itertools.islice(inputs, number, None, count)
    size = options.part_size if options.has_manifest else None
    part = 0
    while some := list(itertools.islice(mine, size)):
        if not isinstance(inputs, Sequence):
            _check(some, options, spec)
        yield _jobs(some, options, part)
        part += 1


def _check(inputs: Sequence[Input], options: Options, spec: DatasetSpec) -> None:
    videos = [item.path for item in inputs if item.is_video]
    for name in options.formats:
        if name in BENCHMARK_FORMATS:
            benchmark_formats.check(name, spec, [item.name for item in inputs])
        if videos and (name == TABLE or name in BENCHMARK_FORMATS):
            raise ValueError(
                f"--format={name} is for images: got the video {videos[0]}. Use "
                f"{', '.join(files.SUFFIXES)} for videos."
            )
    if videos and options.container == "tar":
        raise ValueError(
            f"--container=tar is for images: got the video {videos[0]}. Use "
            "--container=files for videos."
        )
    input_paths = {item.path.resolve() for item in inputs}
    owners: dict[pathlib.Path, Input] = {}
    for item in inputs:
        for path in _paths(item, options).values():
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


def _jobs(inputs: Sequence[Input], options: Options, part: int) -> list[Job]:
    if not storage.is_bucket(options.output):
        return [_job(item, options, part) for item in inputs]
    with concurrent.futures.ThreadPoolExecutor(_NUM_QUESTIONS) as pool:
        return list(pool.map(lambda item: _job(item, options, part), inputs))


def _job(item: Input, options: Options, part: int) -> Job:
    paths = _paths(item, options)
    if options.container == "tar" or options.existing == "overwrite":
        return Job(item, paths, {}, part)
    done = {name: path for name, path in paths.items() if path.exists()}
    if done and options.existing == "error":
        raise ValueError(
            f"outputs must be new: {next(iter(done.values()))} exists. Choose "
            "--existing=skip (to go on) or overwrite, or another --output."
        )
    wanted = {name: path for name, path in paths.items() if name not in done}
    return Job(item, wanted, done, part)


def _paths(item: Input, options: Options) -> dict[str, pathlib.Path]:
    return {
        name: _path(name, item, options) for name in options.formats if name != TABLE
    }


def _advice(one: Input, other: Input) -> str:
    if one.path.parent != other.path.parent:
        return "Give the folder above them, or predict them into different folders."
    patterns = (f"'{item.path.parent}/*{item.path.suffix}'" for item in (one, other))
    return (
        f"Rename one, or predict {' and '.join(patterns)} into different --output "
        "folders."
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
