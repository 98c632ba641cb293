"""Train SegNeXt-T on CamVid by this package and by PyTorch, and compare where they end.

    segnext-jax prepare camvid
    python -m benchmarks.train_to_train --output=runs/train_to_train

Both sides start from the same random weights and see the same bytes in each step, those
of this package's loader and colour distortion, and the same starting bases of the NMF.
PyTorch's side is compare/torch_segnext.py with PyTorch's own autograd, BatchNorm,
AdamW, clipping and schedulers. There are two series:

- exact: without dropout and drop path. Losses are compared step by step. Two forms of
  PyTorch's side, whose sums have another order, show what rounding alone does, and so
  do runs in float64. Weight decay of the norms, a small mistake, shows that the
  comparison sees one.
- drawn: with dropout and drop path, for which each side draws its own numbers. The
  mIoU of both sides are compared over several seeds.

The rule of the verdict is that of `verdict`. Each run leaves a file in the folder; what
is there is not run again, so that the command goes on where it ended. Two terminals may
share the work by --only. Needs torch.
"""

import argparse
import itertools
import json
import pathlib
import sys
import time
from typing import Any

import jax
import torch

from benchmarks.train_to_train.report import draw, report
from benchmarks.train_to_train.sides import (
    FORMS,
    SPEC,
    Run,
    Side,
    batches,
    configure,
    of_jax,
    of_torch,
)
from segnext_jax.cli.whole_files import write_json
from segnext_jax.evaluation.evaluator import measure_segmentation
from segnext_jax.evaluation.inference import Inference
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt
from segnext_jax.pipeline import EvaluationBatches, Fitting, open_split

# Rounding parts the losses of float32 long before; PyTorch is slow in float64.
EXACT_STEPS = {False: 60, True: 20}


def train(run: Run, num_steps: int) -> dict[str, Any]:
    """Return losses, and mIoU by split, of one training."""
    # In float64 the first steps of the schedule of float32.
    config = configure(run, max(num_steps, EXACT_STEPS[False]))
    model = SegNeXt.from_config(config.model, SPEC.num_classes)
    variables = initialize(model, config.seed)
    given = list(itertools.islice(batches(config), num_steps))
    start = time.monotonic()
    with jax.enable_x64(run.is_double):
        make = of_jax if run.side == "jax" else of_torch
        side = make(run, config, variables)
        losses = [side.step(*arrays) for arrays in given]
    seconds = time.monotonic() - start
    splits = ("val", "test") if run.series == "drawn" else ()
    scores = {split: measure(side, config, split) for split in splits}
    found = {split: score for split, score in scores.items() if score is not None}
    return {"losses": losses, "mIoU": found, "seconds": seconds, **run._asdict()}


def measure(side: Side, config: Any, split: str) -> float | None:
    """Return the mIoU in percent, by this package's evaluator; None: no such split."""
    try:
        source = open_split(config.data, SPEC, split)
    except ValueError:
        return None
    examples = EvaluationBatches(
        source,
        Fitting.from_config(config.evaluation),
        num_classes=SPEC.num_classes,
        batch_size=config.evaluation.batch_size,
        ignore_label=SPEC.ignore_label,
    )
    metrics = measure_segmentation(
        Inference.from_config(config, side.logits),
        examples,
        num_classes=SPEC.num_classes,
        ignore_label=SPEC.ignore_label,
    )
    return 100 * metrics.mean_iou


def runs(num_steps: int, num_seeds: int) -> dict[Run, int]:
    """Return the steps of each run of both series."""
    seeds = range(num_seeds)
    drawn = [Run("drawn", side, "float32", seed) for seed in seeds for side in FORMS]
    exact = [Run("exact", side, form, 0) for side in FORMS for form in FORMS[side]]
    steps = {run: EXACT_STEPS[run.is_double] for run in exact}
    return dict.fromkeys(drawn, num_steps) | steps


def main() -> None:
    """Do what runs are missing; print the tables and draw the curves."""
    parser = argparse.ArgumentParser(description="Compare two trainings.")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=200, help="of drawn runs")
    parser.add_argument("--seeds", type=int, default=5, help="of the drawn series")
    parser.add_argument("--only", choices=FORMS, help="do the runs of this side")
    options = parser.parse_args()
    torch.set_num_threads(1)
    jax.config.update("jax_compilation_cache_dir", str(options.output / "compiled"))
    todo = runs(options.steps, options.seeds)
    files = {run: options.output / run.file for run in todo}
    for run, path in files.items():
        if options.only in (None, run.side) and not path.exists():
            write_json(path, train(run, todo[run]))
            sys.stderr.write(f"{path}\n")
    if all(path.exists() for path in files.values()):
        results = {run.file: json.loads(p.read_text()) for run, p in files.items()}
        sys.stdout.write(report(results, options.seeds) + "\n")
        (options.output / "curves.svg").write_text(draw(results))


if __name__ == "__main__":
    main()
