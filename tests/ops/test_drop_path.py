import jax
import numpy as np

from segnext_jax.ops.drop_path import drop_path_factors


def test_a_branch_is_dropped_at_its_rate_and_its_mean_stays():
    rates, batch = (0.0, 0.25, 0.6), 4000
    factors = np.asarray(drop_path_factors(rates, batch, jax.random.key(2)))
    assert factors.shape == (3, batch)
    for rate, drawn in zip(rates, factors, strict=True):
        np.testing.assert_allclose(drawn[drawn > 0], 1 / (1 - rate), rtol=1e-6)
        # Deviations of the share: at most 0.008.
        np.testing.assert_allclose(np.mean(drawn == 0), rate, atol=0.03)
    # Each branch of each image by itself: the share dropped in both is the product.
    both = np.mean((factors[1] == 0) & (factors[2] == 0))
    np.testing.assert_allclose(both, 0.25 * 0.6, atol=0.02)
