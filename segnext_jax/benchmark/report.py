"""What a benchmark found: a table to read, JSON to keep."""

import dataclasses
import json
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
    """

    title: str
    rows: list[dict[str, Any]]
    notes: list[str] = dataclasses.field(default_factory=list)

    def to_markdown(self) -> str:
        """Return the title, the table and the notes as Markdown."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        lines = [f"## {self.title}", ""]
        lines.append(_line(columns))
        lines.append(_line(["---"] * len(columns)))
        lines += [_line([_text(row.get(key)) for key in columns]) for row in self.rows]
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join(lines) + "\n"

    def to_json(self) -> str:
        """Return everything, and the machine, as JSON."""
        return json.dumps({**dataclasses.asdict(self), "machine": machine()}, indent=2)

    def write(self, path: str) -> None:
        """Print the table; write JSON to ``path`` unless that is empty."""
        sys.stdout.write(self.to_markdown())
        if path:
            pathlib.Path(path).write_text(self.to_json() + "\n")


def machine() -> dict[str, Any]:
    """Return what the measurements depend on besides the code."""
    import importlib.metadata
    import os

    versions = {
        name: importlib.metadata.version(name)
        for name in ("jax", "numpy", "opencv-python-headless", "grain")
    }
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return str(value)
