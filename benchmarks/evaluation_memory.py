"""Peak memory of evaluation beyond the network's own: one image of 2048x4096.

The network is replaced by one of no weights that gives logits of the right size, so
that what is measured is logits, their resampling in tiles, counting and the label maps.

    python benchmarks/evaluation_memory.py                # one scale, whole image
    python benchmarks/evaluation_memory.py --multi-scale  # six scales, mirrored, too
"""

import argparse
import resource
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from segnext_jax.cli.command import parse_size
from segnext_jax.evaluation.batch import LabelledBatch
from segnext_jax.evaluation.counting import count_image
from segnext_jax.evaluation.inference import Inference
from segnext_jax.pipeline import Fitting

RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


class Peak:
    """Watches the process's resident memory."""

    def __init__(self):
        """Begin."""
        self.bytes = 0
        self._process = psutil.Process()
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._is_done.wait(0.005):
            self.bytes = max(self.bytes, self._process.memory_info().rss)

    def stop(self) -> int:
        """End; return the largest number of bytes seen."""
        self._is_done.set()
        self._thread.join()
        return self.bytes


def main() -> None:
    """Print MiB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="2048x4096")
    parser.add_argument("--classes", type=int, default=171)
    parser.add_argument("--multi-scale", action="store_true")
    options = parser.parse_args()
    height, width = parse_size(options.size, "--size", multiple=1)
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (height, width, 3), np.uint8)
    labels = generator.integers(0, options.classes, (height, width)).astype(np.uint8)
    fitting = Fitting(ratios=RATIOS if options.multi_scale else (1.0,), multiple=32)
    batch = LabelledBatch(
        images=tuple(fitted[None] for fitted in fitting.images(image)),
        fitted_sizes=tuple((sizes,) for sizes in fitting.sizes(image.shape[:2])),
        image_sizes=((height, width),),
        first_row=0,
        labels=(labels,),
        mask=np.ones(1, bool),
        image_ids=("random",),
    )
    mixture = generator.standard_normal((3, options.classes)).astype(np.float32)

    @jax.jit
    def logits_fn(inputs: jax.Array) -> jax.Array:
        return jnp.einsum("bhwc,cd->bhwd", inputs[:, ::8, ::8], mixture)

    network = Inference(
        logits_fn,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        use_flip=options.multi_scale,
    )
    before = psutil.Process().memory_info().rss
    peak, start = Peak(), time.monotonic()
    (prediction,) = network.label_maps(batch)
    counts = count_image(
        prediction,
        labels,
        num_classes=options.classes,
        ignore_label=255,
        boundary_ratio=0.02,
    )
    seconds, largest = time.monotonic() - start, peak.stop()
    assert counts.confusion.sum() == height * width
    largest = max(largest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    views = len(batch.images) * (2 if options.multi_scale else 1)
    inputs = sum(images.shape[1] * images.shape[2] for images in batch.images)
    logits = 4 * options.classes * inputs // 64 * views // len(batch.images)
    sys.stdout.write(
        f"{options.size}, {options.classes} classes, {views} views: "
        f"{(largest - before) / 2**20:.0f} MiB above the {before / 2**20:.0f} MiB "
        f"before, of which logits {logits / 2**20:.0f} MiB; {seconds:.0f} s\n"
    )


if __name__ == "__main__":
    main()
