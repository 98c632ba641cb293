"""A stand-in for a network, how the tests predict with it, and a command with it."""

import sys
import time

import cv2
import numpy as np

from segnext_jax.datasets import SPECS
from segnext_jax.evaluation.row_blocks import RowBlock
from segnext_jax.images.decode import decode_label
from segnext_jax.predict import predictor
from segnext_jax.predict.__main__ import main
from segnext_jax.predict.batches import Fitted
from segnext_jax.predict.inputs import find_inputs, read_list
from segnext_jax.predict.jobs import Options, plan
from segnext_jax.predict.run import run


class RedIsClass(predictor.Predictor):
    """Stands in for a network: the class of a pixel is its red value."""

    num_devices = 1

    def __init__(self, spec, large_from=10**9):
        self.spec = spec
        self.large_from = large_from
        self.batches = []

    def input_sizes(self, size):
        return (size,)

    def is_large(self, size, has_probabilities=False):
        return size[0] * size[1] >= self.large_from

    def fit(self, image):
        return Fitted((), ())

    def predict_batch(self, images, has_probabilities=False, fitted=None):
        assert len({image.shape for image in images}) == 1
        self.batches.append(len(images))
        return [self._block(image, has_probabilities) for image in images]

    def predict_rows(self, image, has_probabilities=False):
        for top in range(0, len(image), 7):
            yield self._block(image[top : top + 7], has_probabilities)

    def _block(self, image, has_probabilities):
        labels = image[..., 0] % self.spec.num_classes
        probabilities = np.eye(self.spec.num_classes, dtype=np.float32)[labels]
        return RowBlock(labels, probabilities if has_probabilities else None)


def write_image(path, seed=0, size=(20, 30), num_classes=11):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    image[..., 0] = image[..., 0].astype(int) % num_classes
    cv2.imwrite(str(path), image[..., ::-1])
    return image


def predict(words, output, spec="camvid", network=None, **options):
    network = network or RedIsClass(SPECS[spec])
    options = Options(output, **options)
    if options.is_list:
        return run(network, plan(read_list(words), options, network.spec), options)
    found = find_inputs([str(word) for word in words], options.folders)
    parts = list(plan(found, options, network.spec))
    return run(network, parts, options).failures


def read_labels(path):
    return decode_label(path.read_bytes())


def files_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


class Slow(RedIsClass):
    """Takes the time in which its process can be killed."""

    def predict_batch(self, images, has_probabilities=False, fitted=None):
        time.sleep(0.02)
        return super().predict_batch(images, has_probabilities, fitted)


if __name__ == "__main__":
    predictor.load = lambda *_, **__: Slow(SPECS["camvid"])
    main(sys.argv[1:])
