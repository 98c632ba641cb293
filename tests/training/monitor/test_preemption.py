import os
import signal
import time

import pytest

from segnext_jax.training.monitor.preemption import Preempted, Preemption


def notice() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    # The handler runs between two instructions of this thread.
    time.sleep(0.01)


def test_the_notice_is_seen_after_the_step():
    with Preemption() as preemption:
        assert not preemption.is_requested(1)
        notice()
        assert preemption.is_noticed and preemption.is_requested(2)


def test_what_may_be_lost_ends_at_once():
    reached = []
    with Preemption() as preemption:
        with pytest.raises(Preempted), preemption.interruptible():
            reached.append("begin")
            notice()
            reached.append("end")
        # And does not begin again.
        with pytest.raises(Preempted), preemption.interruptible():
            reached.append("again")
    assert reached == ["begin"]


def test_sigterm_does_afterwards_what_it_did_before():
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *arguments: calls.append("mine"))
    try:
        with Preemption() as preemption:
            notice()
            assert preemption.is_noticed and not calls
        notice()
        assert calls == ["mine"]
    finally:
        signal.signal(signal.SIGTERM, before)
