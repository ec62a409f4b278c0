"""What only the garbage collector frees: for tests that it is nothing of size."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def cycles() -> Iterator[Callable[[], list[object]]]:
    """Ask what has been left in cycles since; meanwhile the collector stands still."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)

    def left() -> list[object]:
        gc.collect()
        return gc.garbage

    try:
        yield left
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
