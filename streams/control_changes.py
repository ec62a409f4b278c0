"""Changes of one key of the control topic by several people at once: read, changed, written, and read again.

No write there depends on what stands, so two may be made from one message. The first of them stands, for every reader
of both (`Revised.stands_after`); whoever wrote the other finds that, and writes what stands once more.

Compaction leaves the newest record alone, and who reads that knows of no other. So whoever has written looks until what
stands is the newest, the one whose change stands as the other; and the next change, whose revision is above both, ends
it in any case. So does the referee of experiments, for these and bandits' cohorts, while it runs. Only where both were
killed before they looked, or the other came later and was killed, and the segment, which is open for an hour, has been
compacted, does a worker that starts follow the change that did not stand, until the next one.

``read`` gives what the topic says, ``write`` takes messages, and those that are taken back.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from streams.control import Control
from streams.control_wire import Revised

TRIES_MAX = 5
"""Times that a change yields to others made at the same moment, before it is given up."""

M = TypeVar("M", bound=Revised)
Read = Callable[[], Control]
Write = Callable[[Sequence[M], Sequence[M]], object]


def after(written: M, read: Read, write: Write[M]) -> Control:
    """The topic after a write. What stands is written again until it is the newest: another's change, or this one."""
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
    """The topic after a message and those before it are taken back: what others have made of it meanwhile stands."""
    write((), [written])
    return after(written, read, write)
