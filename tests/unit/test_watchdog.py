"""The event loop's pulse, and topics that are others than they were."""

import pytest

from streams import topics
from streams.identity import TopicIdentity, check_identity, check_topics
from streams.recovery import RecoveryError
from streams.settings import Settings
from streams.watchdog import LOOK_S, LoopPulse

IDENTITY = TopicIdentity(("a", "b"), "c", 4, "d")
NOW = {"ad-impressions": "a", "clicks": "b", "state-changelog": "c", "control": "d"}


def test_a_loop_that_beats_lives_and_one_that_does_not_is_found() -> None:
    pulse = LoopPulse(silence_ms=int(4_000 * LOOK_S))
    for _ in range(10):
        pulse.beat()
        assert not pulse.look()
    assert [pulse.look() for _ in range(4)] == [False, False, False, True]


def test_topics_that_are_as_they_were_are_believed() -> None:
    check_identity(IDENTITY, ("a", "b"), "c", "d")


@pytest.mark.parametrize(
    ("recreated", "help_"),
    [
        ("ad-impressions", "salience lanes adopt"),
        ("clicks", "salience lanes adopt"),
        ("state-changelog", "salience lanes adopt"),
        ("control", "Start the workers again"),
    ],
)
def test_a_topic_recreated_under_a_running_worker_is_refused(
    recreated: str, help_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {f"shop-{name}": "x" if name == recreated else known for name, known in NOW.items()}
    monkeypatch.setattr(topics, "topic_ids", lambda _bootstrap, names: {name: ids[name] for name in names})
    with pytest.raises(RecoveryError, match=f"{recreated} is another topic of that name.*{help_}"):
        check_topics(Settings(topic_prefix="shop-"), IDENTITY)


@pytest.mark.parametrize("gone", NOW)
def test_a_topic_that_is_gone_is_told_from_one_recreated(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "topic_ids", lambda *_: {name: known for name, known in NOW.items() if name != gone})
    assert not check_topics(Settings(), IDENTITY)
