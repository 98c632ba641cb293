"""Memory and time of predicting one very large aerial image, from file to file.

python benchmarks/large_image.py --side=12000 --suffix=.png

Draws the image, makes a SegNeXt-T with random weights for iSAID's 16 classes, and runs
`python -m segnext_jax.predict` in windows, once for a small image (what the program
itself takes) and once for the large one.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import cv2
import numpy as np

from segnext_jax import config as config_lib
from segnext_jax.checkpoints import model_folder
from segnext_jax.models.initialization import initialize
from segnext_jax.models.segnext import SegNeXt

# Runs the command, and prints the MiB that it took.
MEASURE = """
import resource, sys
from segnext_jax.cli import command
from segnext_jax.predict.__main__ import main
code = command.run(main, sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
sys.exit(code)
"""


def main() -> None:
    """Print peak memory and time of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=12000)
    parser.add_argument("--suffix", default=".png")
    parser.add_argument("--window", type=int, default=896)
    parser.add_argument("--stride", type=int, default=896)
    parser.add_argument("--variant", default="tiny")
    parser.add_argument("--format", default="labels,overlay")
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="large_image_"))
    overrides = ["data.name=isaid", f"model.variant={options.variant}"]
    config = config_lib.load(None, overrides)
    model = SegNeXt.from_config(config.model, 16)
    variables = initialize(model, seed=0)
    model_folder.save_model(folder / "model", variables, config_lib.to_json(config))
    for side in (options.window, options.side):
        path = folder / f"{side}{options.suffix}"
        generator = np.random.default_rng(0)
        noise = generator.integers(0, 256, (side // 16, side // 16, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(noise, (side, side)))
        command = [
            *(sys.executable, "-c", MEASURE, f"--checkpoint={folder / 'model'}"),
            *(str(path), f"--output={folder / 'out'}", f"--format={options.format}"),
            *("--config.evaluation.scale=0,0", "--config.evaluation.mode=slide"),
            f"--config.evaluation.window={options.window},{options.window}",
            f"--config.evaluation.stride={options.stride},{options.stride}",
        ]
        start = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.monotonic() - start
        sizes = [
            f"{p.relative_to(folder)} {p.stat().st_size / 1e6:.0f} MB"
            for p in sorted((folder / "out").rglob(f"{side}.*"))
        ]
        sys.stdout.write(
            f"{side} x {side}{options.suffix} ({path.stat().st_size / 1e6:.0f} MB): "
            f"peak {int(done.stdout.split()[-1]):,} MiB, {seconds:.0f} s; "
            f"{', '.join(sizes)}\n"
        )


if __name__ == "__main__":
    main()
