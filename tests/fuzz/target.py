"""What a target is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Check = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """Reads hostile bytes, and says what must hold whatever they are.

    The check returns where it took the bytes or refused them as it promises; anything else that it raises is a
    finding. ``start`` makes it, once a process; ``seeds`` are well-formed inputs, from which a fuzzer begins;
    ``words`` what random bytes would not find.
    """

    name: str
    start: Callable[[], Check]
    seeds: Callable[[], list[bytes]]
    words: Sequence[bytes] = ()
    size_max: int = 2_048
    inputs_per_process: int = 1_000_000
    """Instrumented code keeps some hundred bytes of each exception that it has seen; some inputs bring many."""
