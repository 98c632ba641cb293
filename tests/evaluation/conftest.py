"""The network of the developers' folder, for inference to be applied to."""

import pytest

from ..models.conftest import make_pair

__all__ = ["make_pair"]


@pytest.fixture(scope="session", autouse=True)
def one_thread_for_torch():
    """Images are small: threads that wait for each other only take processors."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
