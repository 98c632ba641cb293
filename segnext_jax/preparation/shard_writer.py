"""Prepared examples to ArrayRecord shards, one after the other.

TFDS's own writer keeps a split in memory, or beyond 1 GB in TensorFlow's temporary
files that it then reads back whole; here an example is on disk as soon as it comes.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any, cast

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core import example_serializer, naming

_SHARD_BYTES = 256 << 20


def write_split(
    name: str,
    examples: Iterable[dict[str, Any]],
    features: tfds.features.FeaturesDict,
    template: naming.ShardedFileTemplate,
) -> tfds.core.SplitInfo:
    """Write the examples of a split in the order in which they come.

    Args:
      name: The split.
      examples: Values by feature.
      features: The features.
      template: Names of the shards' files.

    Returns:
      What TFDS keeps about the split.

    Raises:
      OSError: If a shard cannot be written.
    """
    serializer = example_serializer.ExampleSerializer(
        cast(Any, features.get_serialized_info())
    )
    paths, lengths, sizes, writer = [], [], [], None
    try:
        for example in examples:
            record = serializer.serialize_example(features.encode_example(example))
            if writer is None or sizes[-1] + len(record) > _SHARD_BYTES:
                if writer is not None:
                    with _writing(paths[-1]):
                        writer.close()
                path = f"{template.sharded_filepath(shard_index=0, num_shards=1)}"
                paths.append(f"{path}.part{len(paths)}")
                # Groups of one record: random access reads nothing else.
                writer = ArrayRecordWriter(paths[-1], "group_size:1")
                lengths.append(0)
                sizes.append(0)
            with _writing(paths[-1]):
                writer.write(record)
            lengths[-1] += 1
            sizes[-1] += len(record)
    finally:
        if writer is not None:
            with _writing(paths[-1]):
                writer.close()
    for index, path in enumerate(paths):
        target = template.sharded_filepath(shard_index=index, num_shards=len(paths))
        os.rename(path, target)
    return tfds.core.SplitInfo(
        name=name,
        shard_lengths=lengths,
        num_bytes=sum(sizes),
        filename_template=template,
    )


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    """Say why a shard cannot be written; ArrayRecord has one error for all reasons."""
    try:
        yield
    except RuntimeError as error:
        cause = str(error).partition(";")[0]
        raise OSError(
            f"{path} could not be written: {cause}. Make room, or name another folder "
            "with --data_dir."
        ) from error
