"""A function over many items on all cores, results in the order of the items."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(
    function: Callable[[T], R], items: Iterable[T]
) -> Generator[R, None, None]:
    """Apply a function in threads: decoding and encoding let go of Python's lock.

    Close the generator where the results may not be taken to their end.

    Args:
        function: What to do with an item.
        items: The items; few of them are taken ahead of the results.

    Yields:
        The results in the order of the items; an exception is raised in its turn.
    """
    num_threads = len(os.sched_getaffinity(0))
    waiting: collections.deque[concurrent.futures.Future[R]] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(num_threads)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
