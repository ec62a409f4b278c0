"""A dictionary with a bound: beyond it what came first is given up."""

from itertools import islice
from typing import Any


def give_up_oldest(held: dict[Any, Any], most: int) -> None:
    """Keep ``most`` of ``held`` at most: beyond, its oldest go, a hundredth of them at one go.

    The first key of a dictionary is found by passing every place that was given up before it. One by one that takes
    longer the more are held, and an `OrderedDict`, which knows its first key, takes 70 % more memory.
    """
    if len(held) > most:
        for key in [*islice(held, 1 + most // 100)]:
            del held[key]
