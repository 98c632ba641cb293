import pathlib

import numpy as np
import pytest

from segnext_jax.datasets import SPECS
from segnext_jax.datasets.prepared import prepare_command
from segnext_jax.preparation.segmentation import SegmentationBuilder

ROOT = pathlib.Path(__file__).parents[2]


def load_builder(name, preparing) -> type[SegmentationBuilder]:
    (builder,) = (
        value
        for value in vars(preparing.load(name)).values()
        if isinstance(value, type)
        and issubclass(value, SegmentationBuilder)
        and getattr(value, "spec", None) is SPECS[name]
    )
    return builder


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_data_set_has_the_script_that_messages_name(name, preparing):
    program, command, folder = prepare_command(SPECS[name]).split()[:3]
    assert (program, command) == ("segnext-jax", "prepare")
    script = ROOT / "data" / folder / "prepare.py"
    assert script.is_file() and script.with_name("README.md").is_file()
    builder = load_builder(name, preparing)
    assert builder.name == name
    # Every class is the train id of exactly one raw id; the rest is ignored.
    ids = np.array(sorted(builder.train_id_of.values()))
    if ids.size:
        np.testing.assert_array_equal(
            ids[ids != 255], np.arange(SPECS[name].num_classes)
        )


@pytest.mark.parametrize("name", sorted(SPECS.keys() - {"shapes"}))
def test_without_files_a_download_or_a_source_is_named(name, preparing):
    builder = load_builder(name, preparing)
    assert builder.expected_tree and builder.archive_names
    assert bool(builder.downloads) != bool(builder.source)
    for download in builder.downloads:
        assert download.size_bytes > 1e8 and download.url.startswith("http")
        algorithm, _, digest = download.checksum.partition(":")
        assert len(digest) == {"": 0, "md5": 32, "sha1": 40, "sha256": 64}[algorithm]
