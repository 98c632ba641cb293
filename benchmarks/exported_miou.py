"""mIoU of exported ONNX files on the validation images of their data set.

    segnext-jax export --checkpoint=RUN --dynamic --format=onnx --output=out/float32
    segnext-jax export ... --precision=int8 --output=out/int8
    python -m benchmarks.exported_miou out/float32 out/int8

Of folders with labels, by onnxruntime; images as evaluation resizes them, the nearest
label for each pixel of the photograph.
"""

import argparse
import json
import pathlib

import cv2

from segnext_jax.datasets import get_spec
from segnext_jax.evaluation.counting import Counts, count_image
from segnext_jax.evaluation.metrics import compute_metrics
from segnext_jax.export import onnx_graph
from segnext_jax.images.decode import decode_image, decode_label
from segnext_jax.pipeline import Fitting
from segnext_jax.pipeline.sources import open_source


def main() -> None:
    """Print a line for each folder."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--data_dir", help="where the data set is prepared")
    options = parser.parse_args()
    for folder in options.folders:
        metadata = json.loads((folder / "metadata.json").read_text())
        spec, resize = get_spec(metadata["dataset"]), metadata["resize"]
        scale = resize["fit_into"] and tuple(resize["fit_into"])
        fitting = Fitting(scale=scale, multiple=resize["multiple_of"])
        path = folder / metadata["files"]["onnx"]["file"]
        session = onnx_graph.Session(path.read_bytes())
        counts = Counts.zeros(spec.num_classes, has_boundary=False)
        for example in open_source(spec, spec.val_split, options.data_dir):
            truth = decode_label(example["label"])
            (inputs,) = fitting.images(decode_image(example["image"]))
            (labels,) = session(inputs[None])
            size = truth.shape[::-1]
            nearest = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
            counts += count_image(
                nearest,
                truth,
                num_classes=spec.num_classes,
                ignore_label=spec.ignore_label,
            )
        megabytes, miou = path.stat().st_size / 1e6, compute_metrics(counts).mean_iou
        print(f"{folder}: {megabytes:.1f} MB, mIoU {100 * miou:.2f}", flush=True)


if __name__ == "__main__":
    main()
