"""Predict a folder with Ray Data, one network on each GPU.

    pip install 'ray[data]'
    python docs/programs/ray_prediction.py runs/ade photos out 8

Folder, checkpoint and output must be what all machines see; all three may be in
buckets (s3://, gs://). Workers on CPUs: --cores=4, so many for each. A worker that
dies is started again and does again what it had not finished.
"""

import argparse
import pathlib

import ray

import segnext_jax
from segnext_jax.cli.storage import as_path
from segnext_jax.images.decode import decode_image


class Labels:
    """A worker with a network of its own."""

    def __init__(self, checkpoint, output):
        """Load the network."""
        self.model = segnext_jax.load(checkpoint)
        self.output = as_path(output)

    def __call__(self, batch):
        """Write the labels of some files; return the share of each class."""
        images = map(decode_image, batch["bytes"], batch["path"])
        results = self.model.predict(list(images))
        for path, result in zip(batch["path"], results, strict=True):
            target = (self.output / pathlib.Path(path).name).with_suffix(".png")
            result.save(target)  # Whole or not at all.
        areas = [result.class_areas() for result in results]
        columns = {c: [a.get(c, 0.0) for a in areas] for c in self.model.classes}
        return {"path": batch["path"], **columns}


def main():
    """Map the folder through the workers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("folder")
    parser.add_argument("output", type=as_path)
    parser.add_argument("workers", type=int)
    parser.add_argument("--cores", type=int, help="of a worker without a GPU")
    given = parser.parse_args()
    output = given.output.absolute()
    photos = ray.data.read_binary_files(given.folder, include_paths=True)
    photos.map_batches(
        Labels,
        fn_constructor_args=(str(as_path(given.checkpoint).absolute()), str(output)),
        batch_size=8,
        concurrency=given.workers,
        **({"num_cpus": given.cores} if given.cores else {"num_gpus": 1}),
    ).write_parquet(str(output / "areas"))


if __name__ == "__main__":
    main()
