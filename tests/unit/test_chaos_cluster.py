"""The fault harness asks brokers again where none of them answers, and believes what one of them says."""

from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.integration.chaos.cluster import AGAIN_S, ANSWER_S, ANSWERED_WITHIN_S, UNANSWERED, until_answered


class Asked:
    """Fails with these errors in turn, then answers. It takes ``wait_s`` to fail."""

    def __init__(self, *errors: int, wait_s: float = ANSWER_S) -> None:
        self.errors = list(errors)
        self.wait_s = wait_s
        self.asked = 0
        self.now = 0.0

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def until_answered(self) -> dict[str, int]:
        return until_answered(self, lambda: self.now, self.pause)

    def __call__(self) -> dict[str, Future[int]]:
        answer: Future[int] = Future()
        self.asked += 1
        if self.errors:
            self.now += self.wait_s
            answer.set_exception(KafkaException(KafkaError(self.errors.pop(0))))
        else:
            answer.set_result(1)
        return {"clicks": answer}


@pytest.mark.parametrize("error", sorted(UNANSWERED))
def test_a_question_that_no_broker_answers_is_asked_again(error: int) -> None:
    assert Asked(error, error).until_answered() == {"clicks": 1}


@pytest.mark.parametrize("wait_s", [ANSWER_S, 0.0])
def test_it_is_asked_as_long_as_the_harness_waits_and_not_without_a_pause(wait_s: float) -> None:
    ask = Asked(*[KafkaError._TRANSPORT] * 10_000, wait_s=wait_s)
    with pytest.raises(KafkaException, match="_TRANSPORT"):
        ask.until_answered()
    assert ANSWERED_WITHIN_S <= ask.now <= ANSWERED_WITHIN_S + ANSWER_S
    assert ask.asked <= ANSWERED_WITHIN_S / AGAIN_S + 2


def test_what_a_broker_refuses_is_not_asked_again() -> None:
    ask = Asked(KafkaError.POLICY_VIOLATION)
    with pytest.raises(KafkaException, match="POLICY_VIOLATION"):
        ask.until_answered()
    assert ask.asked == 1
