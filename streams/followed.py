"""Whether topics that are followed are still those that they were when their reader began.

Of a topic that is deleted aiokafka waits for more; of one that is made anew it reads on where the former one was.
Either way its reader hears nothing and does not know. Kafka gives every topic an id, which aiokafka does not tell. Of
a broker that gives none (Kafka before 2.8) a topic made anew cannot be told from the former one, which is said once:
its log's end may go back though it is the same, as when another replica leads.
"""

import time
from collections.abc import Collection, Mapping

import structlog

from streams.aside import aside

log = structlog.get_logger()

NO_ID = 22 * "A"
"""Sixteen bytes of 0, as `streams.topic_admin.found` tells ids."""
LOOK_S = 5.0
"""Between two looks: a metadata request each."""
GONE_LOOKS = 2
"""A broker that has just started may not know every topic yet."""


class MadeAnewError(RuntimeError):
    """Topics that are followed were deleted or made anew: ``topics``, their full names."""

    def __init__(self, topics: Collection[str]) -> None:
        self.topics = frozenset(topics)
        told = ", ".join(sorted(self.topics))
        super().__init__(f"{told}: deleted or made anew; what is known was read from the former one")


class Followed:
    """Looks at ``topics``, full names. ``ids``: by name as they were; of others the first that a broker tells."""

    def __init__(self, bootstrap: str, topics: Collection[str], ids: Mapping[str, str] | None = None) -> None:
        self._bootstrap, self._topics = bootstrap, topics
        self.ids = dict(ids or {})
        self._gone = 0
        self._said = False
        self._due_s = 0.0

    async def look(self) -> None:
        """Check, where the last look is `LOOK_S` ago."""
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + LOOK_S
            await self.check()

    async def check(self) -> None:
        """Raises `MadeAnewError`. While no broker answers nothing is concluded."""
        from streams import topic_admin  # noqa: PLC0415 - librdkafka, which takes an ad server a while to load

        try:
            there = await aside(topic_admin.found, self._bootstrap, self._topics)
        except topic_admin.TopicsError:  # the reader waits for it, too
            return
        unknown = sorted(name for name, topic in there.items() if topic.id == NO_ID)
        if unknown and not self._said:
            self._said = True
            log.warning("the broker gives topics no ids: whether one is made anew cannot be told", topics=unknown)
        others = [name for name, topic in there.items() if self._is_other(name, topic.id)]
        gone = [name for name in self.ids if name in self._topics and name not in there]
        self._gone = self._gone + 1 if gone else 0
        if others or self._gone >= GONE_LOOKS:
            raise MadeAnewError(others or gone)

    def _is_other(self, name: str, found: str) -> bool:
        """Whether the topic of this id is another than that of its name was; an id that was not known is kept."""
        known = self.ids.get(name, NO_ID)
        self.ids[name] = known if found == NO_ID else found
        return NO_ID not in (known, found) and known != found
