"""Old requests of erasure taken back from the control topic, and no new one with them."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from streams.control import Control, read_control, writing
from streams.control_wire import Erasure
from streams.settings import Settings

PRUNE_ID = "privacy-prune"
"""After the topics' prefix, the transactional id of who takes requests back."""


async def prune(settings: Settings, before_ms: int) -> int:
    """Take back the requests older than ``before_ms``, by their own time and by their records'; how many.

    Raises `MissingTopicError`.

    Who asks again after the topic was read and before the tombstone is there would go with it: everybody who reads both
    lets the request stand, yet compaction leaves the tombstone alone. So the request is written once more, after it.

    In `exactly_once` both are one transaction: killed between them, nothing was done. In `at_least_once` the request
    stands as long as it is on the topic, whose segment is closed after an hour, and the next call writes it once more.
    """
    transactional_id = settings.topic_prefix + PRUNE_ID if settings.guarantee == "exactly_once" else None
    async with writing(settings, transactional_id) as write:  # first: it ends what a killed one has left open
        control = await read_control(settings)
        gone = old_requests(control, before_ms)
        left = [erasure for erasure in control.hidden(Erasure) if _newest_ms(erasure) >= before_ms]
        if not gone and not left:
            return 0
        await write([], gone)
        users = {erasure.user_id for erasure in (*gone, *left)}
        while overtaken := await _overtaken(settings, users):
            await write(_repeated(overtaken))
    return len(gone)


def old_requests(control: Control, before_ms: int) -> list[Erasure]:
    """The standing requests older than that."""
    return [erasure for erasure in control.all(Erasure).values() if _newest_ms(erasure) < before_ms]


def _newest_ms(erasure: Erasure) -> int:
    """Until when it takes what people did: by their devices' clocks, and by those that date records."""
    return max(erasure.time_ms, erasure.told_ms)


async def _overtaken(settings: Settings, users: AbstractSet[str]) -> list[Erasure]:
    """Requests of ``users`` that came before what was just written, which may not have been committed yet."""
    control = await read_control(settings, committed=False)
    return [erasure for erasure in control.hidden(Erasure) if erasure.user_id in users]


def _repeated(erasures: Iterable[Erasure]) -> list[Erasure]:
    return [Erasure(user_id=each.user_id, time_ms=each.time_ms, repeated=True) for each in erasures]
