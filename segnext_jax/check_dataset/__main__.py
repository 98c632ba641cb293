"""Check a data set: `segnext-jax check <name, folder or prepared>`.

Reads every photograph and mask, prints what the data set holds and what is wrong with
it, and writes a JSON report and contact sheets. Exit code 1 if a training would stop or
mean nothing; warnings alone give 0.
"""

import argparse
import os
import pathlib
import re
import sys
from collections.abc import Sequence

import cv2

from segnext_jax import config
from segnext_jax.check_dataset import conventions, report
from segnext_jax.check_dataset.finding import ERROR
from segnext_jax.check_dataset.findings import find
from segnext_jax.check_dataset.inspection import inspect_all
from segnext_jax.check_dataset.summary import summarize
from segnext_jax.check_dataset.target import open_target, settings_of
from segnext_jax.cli import command, storage
from segnext_jax.cli.progress import SECONDS_PER_LINE, Progress


def main(arguments: Sequence[str]) -> None:
    """Check one data set; see `--help`.

    Raises:
      ValueError: If the command line or the configuration is impossible.
      OSError: If the data set is missing.
      SystemExit: If the data set has errors, with code 1.
    """
    options, overrides = _parse(arguments)
    if options.target:
        settings = settings_of(options.target)
        overrides = [*(f"{k}={v}" for k, v in settings.items()), *overrides]
    data = config.load(options.config, overrides).data
    command.set_up_logging()
    # The findings say which files are broken; libraries need not.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    remarks = conventions.adopt(data) if conventions.is_open(data, overrides) else []
    target = open_target(data, options.split, remarks)
    facts, num_faults = [], 0
    progress = Progress(
        len(target.pairs), description="check", seconds_per_line=SECONDS_PER_LINE
    )
    for fact in inspect_all(target.pairs, target.masks, options.threads):
        facts.append(fact)
        progress.advance()
        num_faults += bool(fact.faults)
        progress.report(len(facts), {"with faults": str(num_faults)})
    progress.close()
    summary = summarize(target, facts)
    findings = find(summary, data)
    sys.stdout.write(report.text(summary, findings))
    folder = options.output or pathlib.Path("runs") / "check" / _file_name(target.name)
    paths = report.write(folder, summary, findings)
    sys.stdout.write(f"\nWritten: {', '.join(map(str, paths))}\n")
    if any(finding.level == ERROR for finding in findings):
        raise SystemExit(1)


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = command.Parser(
        "check",
        "Say what a data set holds and what is wrong with it. Exit code 1: a training "
        "would stop or mean nothing.",
        f"{command.ANY_FIELD} What the masks of a folder hold is found out unless it "
        "is set: --config.data.zero_is_ignore=true, --config.data.mask_values=colours.",
    )
    parser.add_argument(
        "target",
        nargs="?",
        help="name of a prepared set, its folder, or a folder with images/ and masks/ "
        "(default: that of --config)",
    )
    parser.add_argument(
        "--config", help="name of a shipped config, or a file, for sizes and masks"
    )
    parser.add_argument("--split", help="the only split to check (default: all)")
    parser.add_argument(
        "--output",
        type=storage.as_path,
        help="folder of the report (default: runs/check/<data set>)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count(),
        help="threads that read (default: one a core)",
    )
    options, rest = parser.parse_known_args(arguments)
    if not options.target and not options.config:
        parser.error("name a data set, or a --config that does")
    if options.threads < 1:
        parser.error(f"--threads must be at least 1: got {options.threads}")
    return options, command.overrides(parser, rest)


def _file_name(target_name: str) -> str:
    """Return the data set's name, or the last part of its path, as a file's name."""
    name = target_name.split(" (")[0]
    return re.sub(r"[^\w.-]+", "_", pathlib.Path(name).absolute().name)


if __name__ == "__main__":
    sys.exit(command.run(main, sys.argv[1:]))
