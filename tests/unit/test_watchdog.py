"""The event loop's pulse, and topics that are others than they were."""

import pytest

from streams.identity import TopicIdentity, check_identity
from streams.recovery import RecoveryError
from streams.watchdog import LOOK_S, LoopPulse

IDENTITY = TopicIdentity(("a", "b"), "c", 4)


def test_a_loop_that_beats_lives_and_one_that_does_not_is_found() -> None:
    pulse = LoopPulse(silence_ms=int(4_000 * LOOK_S))
    for _ in range(10):
        pulse.beat()
        assert not pulse.look()
    assert [pulse.look() for _ in range(4)] == [False, False, False, True]


def test_topics_that_are_as_they_were_are_believed() -> None:
    check_identity(IDENTITY, ("a", "b"), "c")


@pytest.mark.parametrize(
    ("inputs", "changelog", "said"),
    [
        (("x", "b"), "c", "ad-impressions is another topic of that name"),
        (("a", "x"), "c", "clicks is another topic"),
        (("a", "b"), "x", "state-changelog is another topic"),
    ],
)
def test_a_topic_recreated_under_a_running_worker_is_refused(
    inputs: tuple[str, str], changelog: str, said: str
) -> None:
    with pytest.raises(RecoveryError, match=f"{said}.*salience lanes adopt"):
        check_identity(IDENTITY, inputs, changelog)
