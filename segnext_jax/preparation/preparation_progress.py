"""Progress of a preparation: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tqdm

_SECONDS_PER_LINE = 10.0

T = TypeVar("T")


def show_progress(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Pass items on and show how many have come.

    Args:
        items: The items.
        total: How many there will be.
        description: What is counted.

    Yields:
        The items.
    """
    if sys.stderr.isatty():
        yield from tqdm.tqdm(
            items, desc=description, total=total, unit=" images", dynamic_ncols=True
        )
        return
    start = shown = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - shown >= _SECONDS_PER_LINE:
            shown = now
            pace = count / (now - start)
            left = (total - count) / pace
            sys.stdout.write(
                f"{description} {count}/{total}  {pace:.1f} images/s  "
                f"{left / 60:.1f} min left\n"
            )
            sys.stdout.flush()
