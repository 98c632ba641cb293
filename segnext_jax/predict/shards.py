"""Parts of a prediction: what a process finishes as a whole, and the list of them.

The inputs of a process, its shard, are cut into parts of so many. What is written of a
part besides a file for each image, a tar and a table, appears when the part is done; a
line of the shard's manifest says so. A process that is killed leaves parts that are
done and parts that are not; the next one begins at the first that is not. Nothing is
held of a part that is done.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from typing import Any

from segnext_jax.cli import storage
from segnext_jax.cli.whole_files import to_json, whole_file
from segnext_jax.datasets import DatasetSpec
from segnext_jax.predict import files
from segnext_jax.predict.images import Failure, Outcome, Sample
from segnext_jax.predict.jobs import TABLE, Job, Options

_HEADER, _PART, _END = "shard", "part", "is_complete"


class Part(contextlib.ExitStack):
    """The outputs of some inputs, which appear together when the block ends."""

    def __init__(self, jobs: Sequence[Job], options: Options, spec: DatasetSpec):
        """Open the files of a part.

        Args:
          jobs: All of its jobs, those that are done already, too.
          options: What is written.
          spec: Names of the classes.
        """
        super().__init__()
        self._jobs = jobs
        self._spec = spec
        self.failures: list[Failure] = []
        self._rows: dict[int, dict[str, Any]] = {}
        self.files = part_files(options, jobs[0].part)
        self._tar: tarfile.TarFile | None = None
        if options.container == "tar":
            partial = self.enter_context(whole_file(self.files["tar"], is_durable=True))
            self._tar = self.enter_context(tarfile.open(partial, "w"))
        if options.has_table:
            partial = self.enter_context(whole_file(self.files[TABLE], is_durable=True))
            self.callback(self._write_table, partial)

    def add(self, job: Job, outcome: Outcome) -> None:
        """Take what came of a job."""
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
        if isinstance(outcome, Sample) and self._tar is not None:
            for name, content in outcome.members.items():
                member = tarfile.TarInfo(_member(name, job.input.name))
                member.size = len(content)
                self._tar.addfile(member, BytesIO(content))
        if TABLE not in self.files:
            return
        row: dict[str, Any] = {"input": str(job.input.path)}
        if isinstance(outcome, Sample):
            row |= {"height": outcome.size[0], "width": outcome.size[1]}
            counts = map(int, outcome.num_pixels)
            row |= dict(zip(_columns(self._spec), counts, strict=True))
        elif outcome is not None:
            row["error"] = outcome.reason
        self._rows[id(job)] = row

    def _write_table(self, path: pathlib.Path) -> None:
        # Where the block fails, the file is removed.
        import pyarrow
        from pyarrow import parquet

        number, text = pyarrow.int64(), pyarrow.string()
        columns = {"input": text, "error": text, "height": number, "width": number}
        columns |= dict.fromkeys(_columns(self._spec), number)
        rows = [self._rows[id(job)] for job in self._jobs if id(job) in self._rows]
        table = pyarrow.Table.from_pylist(rows, pyarrow.schema(list(columns.items())))
        parquet.write_table(table, path)


def _columns(spec: DatasetSpec) -> list[str]:
    return [f"pixels/{name}" for name in spec.classes]


def _member(name: str, path: pathlib.PurePath) -> str:
    """Return the name of a tar's member: WebDataset takes a key up to a point.

    >>> _member("labels", pathlib.PurePath("a.b/c.d"))
    'a.b/c%2Ed.labels.png'
    """
    key = path.with_name(path.name.replace(".", "%2E")).as_posix()
    return f"{key}.{name}{files.SUFFIXES.get(name, '.png')}"


def part_files(options: Options, part: int) -> dict[str, pathlib.Path]:
    """Return the files of a part: of a tar and a table, if they are written."""
    stem = f"{_shard(options)}-{part:06d}"
    found = {}
    if options.container == "tar":
        found["tar"] = options.output / "tar" / f"{stem}.tar"
    if options.has_table:
        found[TABLE] = options.output / TABLE / f"{stem}.parquet"
    return found


def _shard(options: Options) -> str:
    number, count = options.shard
    return f"{number:05d}-of-{count:05d}"


class Manifest:
    """The list of a shard's parts that are done: a line of JSON for each.

    The first line says what is predicted, the last that nothing is left. A line is
    written after the files of its part, so that what is listed is there.
    """

    def __init__(self, options: Options, header: dict[str, Any]):
        """Begin a manifest, or go on with one.

        Raises:
          ValueError: If there is one and ``options.existing`` is "error", or it is that
            of another prediction.
        """
        self._options = options
        self._lines: dict[int, dict[str, Any]] = {}
        self._is_complete = False
        folder = options.output / "manifests"
        self.path = folder / f"{_shard(options)}.jsonl"
        of_others = f"?????-of-{options.shard[1]:05d}.jsonl"
        for other in folder.glob("*-of-*.jsonl"):
            if not other.match(of_others):
                raise ValueError(
                    f"all shards of an output must be of one number: {other} is there, "
                    f"and this is shard {options.shard[0]}/{options.shard[1]}. Choose "
                    "another --output."
                )
        header = {_HEADER: list(options.shard), **header}
        header |= {
            name: getattr(options, name)
            for name in ("formats", "container", "part_size")
        }
        header = json.loads(to_json(header))
        if self.path.exists() and options.existing == "error":
            raise ValueError(
                f"outputs must be new: {self.path} exists. Choose --existing=skip (to "
                "go on) or overwrite, or another --output."
            )
        if options.existing == "skip":
            self._go_on(header)
        # What an earlier process has begun, or all that it has made.
        is_new = options.existing == "overwrite"
        for name in ("tar", TABLE):
            pattern = f"{'' if is_new else '.'}{_shard(options)}-*"
            for path in (options.output / name).glob(pattern):
                path.unlink()
        if is_new or not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(b"")
            self._append(header)

    def _go_on(self, header: dict[str, Any]) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        # A process that was killed may leave half a line.
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(self.path, len(whole))
        first, *lines = map(json.loads, whole.splitlines() or [b"{}"])
        if not first:
            self.path.unlink()
        for name, value in header.items():
            if first and first.get(name) != value:
                raise ValueError(
                    f"what is continued must be the same prediction: {name} is "
                    f"{first.get(name)} in {self.path} and {value} here. Choose "
                    "another --output, or --existing=overwrite."
                )
        self._is_complete = bool(lines) and _END in lines[-1]
        self._lines = {line[_PART]: line for line in lines if _PART in line}

    def done(self, jobs: Sequence[Job]) -> list[Failure] | None:
        """Return what was left out of a part that is done; None: it is not done.

        Raises:
          ValueError: If the part was of other inputs.
        """
        line = self._lines.pop(jobs[0].part, None)
        if line is None:
            return None
        if line["inputs"] != _digest(jobs):
            raise ValueError(
                f"what is continued must have the same inputs in the same order: part "
                f"{jobs[0].part} in {self.path} has others, of which the first is "
                f"{line['first']}. Choose another --output, or --existing=overwrite."
            )
        paths = part_files(self._options, jobs[0].part).values()
        if not all(path.exists() for path in paths):
            return None
        return [Failure(storage.as_path(path), why) for path, why in line["left_out"]]

    def add(self, jobs: Sequence[Job], failures: Iterable[Failure]) -> None:
        """List a part whose files are there."""
        part = jobs[0].part
        paths = part_files(self._options, part).values()
        self._append(
            {
                _PART: part,
                "num_inputs": len(jobs),
                "first": str(jobs[0].input.path),
                "inputs": _digest(jobs),
                "files": [
                    path.relative_to(self._options.output).as_posix() for path in paths
                ],
                "left_out": [[str(one.path), one.reason] for one in failures],
            }
        )

    def end(self, num_inputs: int, num_left_out: int) -> None:
        """Say that all parts are done, unless the last line says so."""
        if self._is_complete:
            return
        counts = {"num_inputs": num_inputs, "num_left_out": num_left_out}
        self._append({_END: True, **counts})

    def _append(self, line: dict[str, Any]) -> None:
        self._is_complete = False
        storage.append_line(self.path, to_json(line).encode())


def _digest(jobs: Iterable[Job]) -> str:
    names = "\0".join(str(job.input.path) for job in jobs)
    return hashlib.sha256(names.encode()).hexdigest()


class Shard:
    """The parts of one process, one after another.

    Attributes:
      num_inputs: Inputs so far.
      num_done: Those of them that an earlier process has done.
      failures: Those of these that it has left out.
    """

    def __init__(self, options: Options, spec: DatasetSpec, header: dict[str, Any]):
        """Begin with the first part that is not done.

        Args:
          options: What is written.
          spec: Names of the classes.
          header: What a manifest says of the network.

        Raises:
          ValueError: If another prediction has written a manifest there.
        """
        self.num_inputs = self.num_done = 0
        self.failures: list[Failure] = []
        self._options = options
        self._spec = spec
        self._manifest = Manifest(options, header) if options.has_manifest else None
        self._open: dict[int, tuple[Part, Sequence[Job], int]] = {}

    def todo(self, parts: Iterable[Sequence[Job]]) -> Iterator[Job]:
        """Yield the jobs that are left."""
        for jobs in parts:
            listed = self._manifest.done(jobs) if self._manifest else None
            if not self._options.has_part_files:
                left = [job for job in jobs if job.paths]
            else:
                left = list(jobs) if listed is None else []
                self.failures += listed or []
            self.num_inputs += len(jobs)
            self.num_done += len(jobs) - len(left)
            if left:
                part = Part(jobs, self._options, self._spec)
                self._open[jobs[0].part] = (part, jobs, len(left))
                yield from left
            elif self._manifest and listed is None:
                self._manifest.add(jobs, [])

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Take what came of a job; end its part if it was the last one."""
        part, jobs, num_left = self._open[job.part]
        part.add(job, outcome)
        self._open[job.part] = (part, jobs, num_left - 1)
        if num_left == 1:
            part.close()
            del self._open[job.part]
            if self._manifest:
                self._manifest.add(jobs, part.failures)

    def end(self, num_left_out: int) -> None:
        """Say that all parts are done."""
        if self._manifest:
            self._manifest.end(self.num_inputs, num_left_out)

    def abandon(self, error: BaseException) -> None:
        """Remove what is begun of the open parts."""
        for part, *_ in self._open.values():
            part.__exit__(type(error), error, error.__traceback__)
