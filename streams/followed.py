"""Whether followed topics are still the same as when their reader began, and whether brokers still let that one in.

If a topic is deleted, aiokafka waits for more records; if it is recreated, aiokafka reads on at the former offset; if
it gets more partitions, aiokafka reads those that the reader has named. The reader does not notice. Kafka gives every
topic an id, which aiokafka does not expose. A broker before Kafka 2.8 has no ids, so a recreated topic goes unnoticed
there, which is logged once. The log's end is no sign: it may go back in the same topic, too, as when another replica
leads.

Nor does a reader notice that it is shut out (`streams.hearing`). A check asks by a connection of its own, with the
password that is there by then.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.aside import aside
from streams.connection import ConnectionSettingsError, security
from streams.hearing import Hearing
from streams.mendable import MendableError

log = structlog.get_logger()

NO_ID = 22 * "A"
"""Sixteen bytes of 0, as `streams.topic_admin.found` tells ids."""
LOOK_S = 5.0
"""Seconds between two checks, of one metadata request each."""
GONE_LOOKS = 2
"""Checks in a row that must miss a topic: a broker that has just started may not know every topic yet."""


class MadeAnewError(MendableError):
    """Followed topics were deleted or recreated. ``topics``: their full names."""

    def __init__(self, topics: Collection[str]) -> None:
        self.topics = frozenset(topics)
        told = ", ".join(sorted(self.topics))
        super().__init__(f"{told}: deleted or made anew; what is known was read from the former one")


class MorePartitionsError(MendableError):
    """Followed topics have got partitions that their reader does not read."""


class Followed:
    """Checks ``topics``, full names. ``ids``: their ids by name; for others, the first that a broker tells counts.

    ``subscribed``: whether the reader also reads partitions that are added.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Collection[str],
        ids: Mapping[str, str] | None = None,
        *,
        subscribed: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bootstrap, self._topics, self._subscribed, self._clock = bootstrap, topics, subscribed, clock
        self.ids = dict(ids or {})
        self.partitions: dict[str, int] = {}
        """How many each topic had when its reader began."""
        self.is_unanswered = False
        """Whether no broker has answered the last check."""
        self._gone = 0
        self._said = False
        self._password: str | None = None
        self._hearing = Hearing(clock)
        self._due_s = 0.0
        self._checking: asyncio.Task[None] | None = None

    def look(self, consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]) -> None:
        """Begin a check, if the last began at least `LOOK_S` ago; raises what an earlier one has found.

        It does not wait: while the bootstrap brokers are away a check takes ten seconds, but those that lead the
        partitions may answer. Before anything is read, `check`; at the end, `leave`. ``consumer``: the reader's, which
        asks about ``partitions`` after each look.
        """
        self._hearing.listen(consumer, partitions)
        if self._checking is not None and self._checking.done():
            ended, self._checking = self._checking, None
            ended.result()
        if self._checking is None and self._clock() >= self._due_s:
            self._checking = asyncio.ensure_future(self.check())

    async def leave(self) -> None:
        """Wait for no check that is under way."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)

    async def check(self) -> None:
        """Raises `MadeAnewError` and `MorePartitionsError`. While no broker answers, it concludes nothing.

        Raises `streams.topic_admin.ShutOutError` where the reader hears nothing and its password is wrong, or another
        than when it began: it cannot hear again. While it hears, its connections hold, and it goes on. Nor does it end
        while files of the connection do not fit together, as in the middle of a renewal: the reader is connected.
        """
        from streams import topic_admin  # noqa: PLC0415 - librdkafka, which takes an ad server a while to load
        from streams.topic_admin import ShutOutError, TopicsError  # noqa: PLC0415 - as above

        self._due_s = self._clock() + LOOK_S
        try:
            password = security().password
            there = await aside(topic_admin.found, self._bootstrap, self._topics)
        except ShutOutError as error:
            if self._hearing.is_deaf:
                raise
            log.warning("nobody new is let in, the reader goes on by the connections that it has", error=str(error))
            return
        except TopicsError:  # the reader waits for the broker, too
            self._hearing.excuse()
            self.is_unanswered = True
            return
        except ConnectionSettingsError as error:
            log.warning("whether topics are made anew is not looked at", error=str(error))
            return
        self.is_unanswered = False
        self._password = password if self._password is None else self._password
        if self._hearing.is_deaf and password != self._password:
            raise ShutOutError("the password was changed since this process began: start it again")
        unknown = sorted(name for name, topic in there.items() if topic.id == NO_ID)
        if unknown and not self._said:
            self._said = True
            log.warning("the broker gives topics no ids: whether one is made anew cannot be told", topics=unknown)
        others = [name for name, topic in there.items() if self._is_other(name, topic.id)]
        gone = [name for name in self.ids if name in self._topics and name not in there]
        self._gone = self._gone + 1 if gone else 0
        if others or self._gone >= GONE_LOOKS:
            raise MadeAnewError(others or gone)
        had = {name: self.partitions.setdefault(name, topic.partitions) for name, topic in there.items()}
        more = [f"{name} has {there[name].partitions}" for name in there if there[name].partitions > had[name]]
        if more and not self._subscribed:
            raise MorePartitionsError(f"{', '.join(more)} partitions, more than are read: start again to read them all")

    def _is_other(self, name: str, found: str) -> bool:
        """Whether the topic ``name`` had another id before; the first known id is remembered, and stays."""
        known = self.ids.get(name, NO_ID)
        if known == NO_ID:
            self.ids[name] = found
        return NO_ID not in (known, found) and known != found
