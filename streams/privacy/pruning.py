"""Removes old erasure requests from the control topic, and no new one with them."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from streams.control import Control, read_control, writing
from streams.control_wire import Consent, Erasure
from streams.settings import Settings

PRUNE_ID = "privacy-prune"
"""Transactional id of the process that prunes, after the topics' prefix."""


async def prune(settings: Settings, before_ms: int) -> int:
    """Take back the requests older than ``before_ms``, both by their own and their records' time. Returns how many.

    Requests stay that have ended a consent that stands (`old_requests`).

    Raises `MissingTopicError`.

    A user may ask again after the topic was read and before the tombstone is written. Readers of both records let that
    request stand, but compaction would leave the tombstone alone. So the request is written again, after the tombstone.

    In `exactly_once` both writes are one transaction: if this is killed between them, nothing was done. In
    `at_least_once` the request stands while it is on the topic, whose segment closes after an hour; the next call
    writes it again.
    """
    transactional_id = settings.topic_prefix + PRUNE_ID if settings.guarantee == "exactly_once" else None
    async with writing(settings, transactional_id) as write:  # first: it ends a transaction that a killed one left open
        control = await read_control(settings)
        gone = old_requests(control, before_ms)
        left = [erasure for erasure in control.hidden(Erasure) if erasure not in gone]
        if not gone and not left:
            return 0
        await write([], gone)
        users = {erasure.user_id for erasure in (*gone, *left)}
        while overtaken := await _overtaken(settings, users):
            await write(_repeated(overtaken))
    return len(gone)


def old_requests(control: Control, before_ms: int) -> list[Erasure]:
    """The standing requests older than ``before_ms``, without those that have ended a consent that stands.

    Where silence means no, that consent would count again. Whatever it means now: an operator may change it later.
    """
    old = [erasure for erasure in control.all(Erasure).values() if _newest_ms(erasure) < before_ms]
    return [erasure for erasure in old if not _ends(erasure, control.get(Consent, erasure.user_id))]


def _ends(erasure: Erasure, answer: Consent | None) -> bool:
    return answer is not None and answer.granted and answer.told_ms <= erasure.told_ms


def _newest_ms(erasure: Erasure) -> int:
    """The later of the request's two times: by the clock of the device, and by that of its record."""
    return max(erasure.time_ms, erasure.told_ms)


async def _overtaken(settings: Settings, users: AbstractSet[str]) -> list[Erasure]:
    """Requests of ``users`` that stand before what was just written; that may not have been committed yet."""
    control = await read_control(settings, committed=False)
    return [erasure for erasure in control.hidden(Erasure) if erasure.user_id in users]


def _repeated(erasures: Iterable[Erasure]) -> list[Erasure]:
    return [Erasure(user_id=each.user_id, time_ms=each.time_ms, repeated=True) for each in erasures]
