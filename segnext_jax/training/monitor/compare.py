"""Compare runs: `segnext-jax compare runs/a runs/b --output=comparison`.

Writes the curves of loss and metrics, class by class, as a picture and as a page that
needs no network; the page also says in which settings the runs differ.
"""

import argparse
import html
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from segnext_jax.cli import command, storage

PICTURE_FILE, PAGE_FILE = "comparison.png", "comparison.html"


class Run(NamedTuple):
    """What a run has written.

    Attributes:
      name: What it is called.
      lines: Its metrics, in the order of the steps.
      settings: Its configuration, by field.
    """

    name: str
    lines: list[dict[str, Any]]
    settings: dict[str, Any]

    def curve(self, *keys: str) -> list[tuple[int, float | int]]:
        """Return (step, value) wherever a line has a number under the keys."""
        points = []
        for line in self.lines:
            value: Any = line
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, int | float):
                points.append((line["step"], value))
        return points


def main(arguments: Sequence[str]) -> None:
    """Compare runs; see `--help`.

    Raises:
      ValueError: If a folder is no run, or its metrics cannot be read.
    """
    options = _parse(arguments)
    import cv2

    from segnext_jax.cli.whole_files import whole_file
    from segnext_jax.images import charts

    runs = _read(options.runs)
    drawn = _charts(runs)
    options.output.mkdir(parents=True, exist_ok=True)
    picture = charts.draw(drawn, [run.name for run in runs])
    with whole_file(options.output / PICTURE_FILE) as partial:
        cv2.imwrite(str(partial), picture[..., ::-1])
    with whole_file(options.output / PAGE_FILE) as partial:
        partial.write_text(_page(runs, drawn), encoding="utf-8")
    sys.stdout.write(
        f"Written: {options.output / PICTURE_FILE}, {options.output / PAGE_FILE}\n"
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command.Parser(
        "compare",
        "Draw loss, metrics and the IoU of each class of several runs, and tell which "
        "settings differ.",
    )
    parser.add_argument(
        "runs", nargs="+", type=storage.as_path, metavar="RUN", help="folder of a run"
    )
    parser.add_argument(
        "--output",
        type=storage.as_path,
        default=pathlib.Path("comparison"),
        help=f"folder of {PICTURE_FILE} and {PAGE_FILE} (default: comparison)",
    )
    return parser.parse_args(arguments)


def _read(folders: Sequence[pathlib.Path]) -> list[Run]:
    from segnext_jax.checkpoints import json_files
    from segnext_jax.checkpoints.reading import stored_config
    from segnext_jax.config.overrides import flatten

    runs = []
    names = [folder.absolute().name for folder in folders]
    for folder, name in zip(folders, names, strict=True):
        config = stored_config(folder)
        path = folder / "metrics.jsonl"
        lines = json_files.keep_steps(path, sys.maxsize, is_writing=False)
        if not lines:
            raise ValueError(
                f"{path} must hold the metrics of a run, a line of JSON for each step: "
                f"it {'holds none' if path.exists() else 'does not exist'}. Train it, "
                "or leave the run out."
            )
        name = name if names.count(name) == 1 else str(folder)
        runs.append(Run(name, lines, dict(flatten(config))))
    return runs


def _charts(runs: Sequence[Run]) -> list[Any]:
    from segnext_jax.images.charts import Chart

    keys: list[tuple[str, ...]] = [
        *(("loss",), ("mIoU",), ("mAcc",), ("aAcc",), ("top1",), ("top5",))
    ]
    classes = {
        name: None
        for run in runs
        for line in run.lines
        for name in (line.get("IoU") or {})
    }
    keys += [("IoU", name) for name in classes]
    found = []
    for key in keys:
        curves = {number: run.curve(*key) for number, run in enumerate(runs)}
        if any(curves.values()):
            found.append(Chart(" ".join(key), curves))
    return found


def _page(runs: Sequence[Run], drawn: Sequence[Any]) -> str:
    from segnext_jax.images import charts

    names = [
        f'<th><i style="background:{colour}"></i>{html.escape(run.name)}</th>'
        for run, colour in zip(runs, charts.colours(len(runs)), strict=True)
    ]
    rows: dict[str, list[str]] = {"steps": [f"{r.lines[-1]['step']:,}" for r in runs]}
    for metric in ("mIoU", "top1"):
        bests = [
            max(run.curve(metric), key=lambda p: p[1], default=None) for run in runs
        ]
        if any(bests):
            rows[f"best {metric}"] = [
                f"{100 * best[1]:.2f} (step {best[0]:,})" if best else "-"
                for best in bests
            ]
    fields = dict.fromkeys(field for run in runs for field in run.settings)
    for field in fields:
        values = [json.dumps(run.settings.get(field)) for run in runs]
        if len(set(values)) > 1:
            rows[f"config.{field}"] = values
    table = "\n".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(f"<td>{html.escape(value)}</td>" for value in values)
        + "</tr>"
        for name, values in rows.items()
    )
    pictures = "\n".join(charts.svg(chart) for chart in drawn)
    return _PAGE.format("".join(names), table, pictures)


_PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>Comparison of runs</title>
<style>
:root{{color-scheme:light dark;--grid:light-dark(#ddd,#444)}}
body{{font:15px system-ui;margin:1.5rem}}
.wide{{overflow-x:auto}}
th,td{{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid var(--grid);
vertical-align:top;min-width:6rem;overflow-wrap:break-word;max-width:30rem}}
tr>th:first-child{{font-weight:normal}}
i{{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin-right:.4em}}
main{{margin-top:1.5rem;display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1rem}}
svg{{width:100%}}text{{font-size:12px;fill:currentColor}}
polyline{{stroke-width:1.6}}.grid{{stroke:var(--grid);stroke-width:1}}
</style>
<h1>Comparison of runs</h1>
<div class=wide><table><tr><th></th>{}</tr>
{}
</table></div>
<main>
{}
</main>
</html>
"""


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
