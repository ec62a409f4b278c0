"""The load generator of the latency benchmark, where a broker is slow to lead what was just made."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tests.bench.drive import ANSWER_S, end_of


class Asked:
    """A consumer whose broker refuses the first questions."""

    def __init__(self, *codes: int) -> None:
        self._codes = list(codes)

    def get_watermark_offsets(self, _partition: TopicPartition, timeout: float) -> tuple[int, int]:
        assert timeout == ANSWER_S
        if self._codes:
            raise KafkaException(KafkaError(self._codes.pop(0)))
        return 3, 7


def ends(consumer: Any) -> tuple[int, int]:
    """Where the partition ends, and how often it had to be asked again."""
    waits: list[float] = []
    return end_of(consumer, TopicPartition("echo", 0), waits.append), len(waits)


def test_a_partition_that_has_no_leader_yet_is_asked_again() -> None:
    assert ends(Asked()) == (7, 0)
    assert ends(Asked(KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION)) == (7, 2)


@pytest.mark.parametrize(
    "codes", [[KafkaError.TOPIC_AUTHORIZATION_FAILED], [KafkaError.NOT_LEADER_FOR_PARTITION] * 300]
)
def test_any_other_answer_and_a_leader_that_never_comes_end_the_run(codes: list[int]) -> None:
    with pytest.raises(KafkaException):
        ends(Asked(*codes))
