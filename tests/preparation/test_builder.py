import os
import time

import pytest

from segnext_jax.preparation.builder import map_in_order


def test_results_come_in_the_order_of_the_items():
    def slow_first(k):
        time.sleep(0.02 if k % 5 == 0 else 0)
        return k * k

    assert list(map_in_order(slow_first, range(40))) == [k * k for k in range(40)]


def test_few_items_are_taken_ahead():
    taken = []

    def items():
        for k in range(10_000):
            taken.append(k)
            yield k

    results = map_in_order(lambda k: k, items())
    assert next(results) == 0
    results.close()
    assert len(taken) == 2 * len(os.sched_getaffinity(0)) + 1


def test_an_error_comes_in_its_turn():
    def fail_at_three(k):
        if k == 3:
            raise ValueError("three")
        return k

    results = map_in_order(fail_at_three, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
