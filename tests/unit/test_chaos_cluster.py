"""The fault harness asks brokers again where none of them answers, and believes what one of them says."""

from concurrent.futures import Future
from itertools import count

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.integration.chaos.cluster import ANSWER_S, ANSWERED_WITHIN_S, until_answered


class Asked:
    """Fails with these errors in turn, then answers; each time takes as long as nobody answers."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.now = 0.0

    def __call__(self) -> dict[str, Future[int]]:
        answer: Future[int] = Future()
        if self.errors:
            self.now += ANSWER_S
            answer.set_exception(KafkaException(KafkaError(self.errors.pop(0))))
        else:
            answer.set_result(1)
        return {"clicks": answer}


@pytest.mark.parametrize("error", [KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError.REQUEST_TIMED_OUT])
def test_a_question_that_no_broker_answers_is_asked_again(error: int) -> None:
    ask = Asked(error, error)
    assert until_answered(ask, lambda: ask.now) == {"clicks": 1}


def test_it_is_asked_no_longer_than_the_harness_waits() -> None:
    ask = Asked(*[KafkaError._TIMED_OUT] * 1000)
    with pytest.raises(KafkaException, match="_TIMED_OUT"):
        until_answered(ask, lambda: ask.now)
    assert ask.now == ANSWERED_WITHIN_S


def test_what_a_broker_refuses_is_not_asked_again() -> None:
    ask, clock = Asked(KafkaError.POLICY_VIOLATION), count()
    with pytest.raises(KafkaException, match="POLICY_VIOLATION"):
        until_answered(ask, lambda: float(next(clock)))
    assert not ask.errors
