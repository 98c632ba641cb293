"""The programs between images and labels."""

import jax
import jax.numpy as jnp
import numpy as np

from segnext_jax.evaluation import scoring
from segnext_jax.ops import sharding


def test_ties_go_to_the_first_class_and_nan_to_none():
    scores = jnp.asarray([[1, 3, 3], [2, 2, 2], [0, 1, np.nan], [-np.inf, -2, -1]])
    assert scoring.best_labels(scores[None, None]).tolist() == [[[1, 0, 3, 2]]]


def test_devices_need_nothing_of_each_other():
    """Rows are resampled where they lie: no collective stands in the programs."""
    spread = sharding.batch_sharding(sharding.make_mesh())

    def given(*shape, dtype="float32"):
        return jax.ShapeDtypeStruct((8, *shape), dtype, sharding=spread)

    axis = given(8, dtype="int32"), given(32, 8)
    arguments = given(6, 9, 5), axis, axis
    programs = [
        scoring.resample.lower(*arguments),
        scoring.add_probabilities.lower(given(32, 32, 5), 0.5, *arguments),
        scoring.best_labels.lower(given(32, 32, 5)),
        scoring.resampled_labels.lower(*arguments),
        scoring.enlarged_labels.lower(given(6, 10, 5), 8),
        scoring.network_input.lower(
            given(16, 24, 3, dtype="uint8"),
            given(2, dtype="int32"),
            mean=(123.675, 116.28, 103.53),
            std=(58.395, 57.12, 57.375),
            is_mirrored=True,
        ),
    ]
    for program in programs:
        text = program.compile().as_text()
        for collective in ("all-gather", "all-reduce", "all-to-all", "permute"):
            assert collective not in text
