import numpy as np

from segnext_jax.pipeline.order import ShuffledEpochs, WeightedDraws, augmentation_rng


def test_each_epoch_is_an_order_of_its_own():
    order = ShuffledEpochs(num_examples=12, seed=3)
    epochs = [tuple(order[12 * epoch + i] for i in range(12)) for epoch in range(50)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len(set(epochs)) == 50
    # Any place by itself, far ahead or back, and for any other object.
    again = ShuffledEpochs(num_examples=12, seed=3)
    assert again[12 * 40 + 5] == epochs[40][5] and again[7] == epochs[0][7]
    other = ShuffledEpochs(num_examples=12, seed=4)
    assert tuple(other[i] for i in range(12)) != epochs[0]
    assert sorted(order[10**15 // 12 * 12 + i] for i in range(12)) == list(range(12))


def test_every_order_is_equally_likely():
    firsts = [ShuffledEpochs(5, seed)[0] for seed in range(1000)]
    # 200 each with a standard deviation of 13.
    assert np.abs(np.bincount(firsts) - 200).max() < 50


def test_draws_follow_their_probabilities():
    probabilities = np.array([0.5, 0.0, 0.2, 0.3])
    order = WeightedDraws(np.cumsum(probabilities), seed=1)
    drawn = np.bincount([order[place] for place in range(4000)], minlength=4) / 4000
    assert drawn[1] == 0
    np.testing.assert_allclose(drawn, probabilities, atol=0.03)  # Deviation 0.008.
    # Rounding may leave the sum below the largest draw.
    assert WeightedDraws(np.array([0.0, 1e-9]), seed=1)[0] == 1


def test_augmentation_draws_differ_by_seed_and_place():
    draws = {
        augmentation_rng(seed, place).random() for seed in (0, 1) for place in range(50)
    }
    assert len(draws) == 100


def test_the_order_and_the_augmentation_draw_numbers_of_their_own():
    order = WeightedDraws(np.linspace(0.001, 1, 1000), seed=3)
    drawn = [order[place] for place in range(20)]
    others = [int(1000 * augmentation_rng(3, place).random()) for place in range(20)]
    assert not any(a == b for a, b in zip(drawn, others, strict=True))
