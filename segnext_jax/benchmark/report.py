"""What a benchmark found: a table to read, JSON to keep."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from typing import Any


@dataclasses.dataclass
class Report:
    """Rows of measurements.

    Attributes:
        title: What was measured.
        rows: One dict per row; keys are the column titles.
        notes: Sentences below the table.
        command: The command line that found it.
        date: Of the day.
    """

    title: str
    rows: list[dict[str, Any]]
    notes: list[str] = dataclasses.field(default_factory=list)
    command: str = ""
    date: str = dataclasses.field(
        default_factory=lambda: datetime.date.today().isoformat()
    )

    def to_markdown(self) -> str:
        """Return the title, the table and the notes as Markdown."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        lines = [f"## {self.title}", ""]
        lines.append(_line(columns))
        lines.append(_line(["---"] * len(columns)))
        lines += [_line([_text(row.get(key)) for key in columns]) for row in self.rows]
        for note in [*self.notes, self._origin()]:
            lines += ["", note]
        return "\n".join(lines) + "\n"

    def _origin(self) -> str:
        """Return what the numbers depend on besides the code, as one note."""
        here = machine()
        versions = ", ".join(f"{name} {v}" for name, v in here["versions"].items())
        threads = here["torch threads"]
        return (
            f"{self.date}, {here['processor']}, {here['cores']} cores, {versions}"
            + (f", {threads} threads of torch" if threads else "")
            + (f": `{self.command}`" if self.command else "")
        )

    def to_json(self) -> str:
        """Return everything, and the machine, as JSON."""
        return json.dumps({**dataclasses.asdict(self), "machine": machine()}, indent=2)

    def write(self, path: str) -> None:
        """Print the table; write JSON to ``path`` unless that is empty."""
        sys.stdout.write(self.to_markdown())
        if path:
            pathlib.Path(path).write_text(self.to_json() + "\n")


def machine() -> dict[str, Any]:
    """Return what the measurements depend on besides the code.

    ``cores`` are those that this process may use; ``torch threads`` is None where
    nothing was measured in PyTorch.
    """
    versions = {}
    for name in ("jax", "torch", "numpy", "opencv-python-headless", "grain"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    torch = sys.modules.get("torch")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
        "torch threads": torch.get_num_threads() if torch else None,
    }


def _processor() -> str:
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return str(value)
