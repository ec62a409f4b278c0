"""For how long a reader hears nothing: aiokafka tries a wrong password for ever, and says so in its log alone.

What changes what aiokafka calls the time of an answer is an answer: the clock by which it tells that may go back.
"""

from collections.abc import Callable, Collection

from aiokafka import AIOKafkaConsumer, TopicPartition

DEAF_S = 15.0
"""A reader that brokers have let in hears from them twice a second, even where there is nothing new."""
PAUSE_S = 1.0
"""A longer time between two looks counts as this: a reader that is busy, or was stopped, asks for nothing."""


class Hearing:
    """Adds up the time without an answer, from look to look; ``clock``: in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: dict[TopicPartition, int | None] = {}
        self._silent_s, self._looked_s = 0.0, clock()

    @property
    def is_deaf(self) -> bool:
        """Whether nothing was heard for `DEAF_S`."""
        return self._silent_s >= DEAF_S

    def listen(self, consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]) -> None:
        """Look whether the reader has heard anything of the ``partitions`` about which it asks."""
        now_s, answers = self._clock(), {tp: consumer.last_poll_timestamp(tp) for tp in partitions}
        heard = any(answers[tp] != self._answers.get(tp) for tp in answers)
        self._silent_s = 0.0 if heard else self._silent_s + min(now_s - self._looked_s, PAUSE_S)
        self._answers, self._looked_s = self._answers | answers, now_s

    def excuse(self) -> None:
        """Begin anew: nobody could have been heard."""
        self._silent_s = 0.0
