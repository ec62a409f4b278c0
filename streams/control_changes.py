"""Concurrent changes of one key of the control topic: read, change, write, and read again.

Kafka has no compare-and-set, so two people may each write a message made from the same one. For every reader of both,
the first stands (`Revised.stands_after`). The writer of the other sees that, and writes what stands once more.

Compaction keeps only the newest record of a key, and whoever reads later knows of no other. So both writers look, and
write again, until the message that stands is the newest. The next change settles it in any case: its revision is above
both. The referee of experiments, while it runs, does the same for experiments and bandits' cohorts. One case is left:
both writers were killed before they looked (or the one who wrote later, after the first had looked), and compaction has
reached the segment, which stays open for an hour. Then a worker that starts follows the losing change until the next.

``read`` reads the topic; ``write`` takes the messages to write, and those to take back.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from streams.control import Control
from streams.control_wire import Revised

TRIES_MAX = 5
"""How often a change is read and written again, while others are made at the same moment, before it is given up."""

M = TypeVar("M", bound=Revised)
Read = Callable[[], Control]
Write = Callable[[Sequence[M], Sequence[M]], object]


def after(written: M, read: Read, write: Write[M]) -> Control:
    """The topic after a write. The message that stands, this one or another's, is written again until it is newest."""
    kind, name = type(written), written.name
    for _ in range(TRIES_MAX):
        control = read()
        stands = control.get(kind, name)
        if stands is None or stands not in control.hidden(kind):
            break
        written = msgspec.structs.replace(stands, revision=stands.revision + 1)
        write([written], ())
    return control


def take_back(written: M, read: Read, write: Write[M]) -> Control:
    """Take back a message and those before it; return the topic after that. Newer changes by others stand."""
    write((), [written])
    return after(written, read, write)
