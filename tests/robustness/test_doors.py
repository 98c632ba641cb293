"""No input of any door ends in a traceback, hangs, fills the memory or runs code."""

import os

import pytest

from tests.robustness import trial
from tests.robustness.case import Case
from tests.robustness.child import outcome_of


def check(results):
    bad = [result for result in results if result.outcome not in trial.GOOD]
    assert not bad, "\n".join(map(str, bad))
    accepted = {r.door for r in results if r.outcome == "accepted"}
    refused = {r.door for r in results if r.outcome == "refused"}
    # A door that takes all or nothing is not tried.
    assert accepted == refused == set(trial.DOORS)


def test_a_sample_of_inputs():
    check(trial.run(num_inputs=100, seed=9))


@pytest.mark.slow
def test_many_inputs():
    results = trial.run(int(os.environ.get("ROBUSTNESS_INPUTS", 3000)), seed=0)
    check(results)


def in_package(error):
    def fail():
        raise error

    return fail


def test_the_judge_tells_what_a_user_would_see():
    from segnext_jax.images.decode import decode_image

    assert outcome_of(Case("", lambda: None))[0] == "accepted"
    assert outcome_of(Case("", lambda: None, is_wrong=True))[0] == "wrongly accepted"
    assert outcome_of(Case("", lambda: decode_image(b"no"), True))[0] == "refused"
    assert outcome_of(Case("", lambda: int("x")))[0] == "traceback"
    assert outcome_of(Case("", in_package(KeyError("x"))))[0] == "traceback"
    assert outcome_of(Case("", in_package(MemoryError())))[0] == "traceback"
