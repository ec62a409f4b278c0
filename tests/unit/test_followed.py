"""What a reader concludes from the ids of its topics, and what it does not."""

import asyncio
import threading

import pytest
from confluent_kafka import Uuid
from structlog.testing import capture_logs

from streams.connection import ConnectionSettingsError
from streams.followed import GONE_LOOKS, NO_ID, Followed, MadeAnewError, MorePartitionsError
from streams.topic_admin import Found, TopicsError

HERE = {"ads": Found("id-1", 1), "clicks": Found("id-2", 1)}


def check(followed: Followed, there: dict[str, Found] | Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at what a broker tells, or at none."""

    def found(_: str, names: list[str]) -> dict[str, Found]:
        if isinstance(there, Exception):
            raise there
        return {name: there[name] for name in names if name in there}

    monkeypatch.setattr("streams.topic_admin.found", found)
    asyncio.run(followed.check())


def test_an_outage_from_the_first_look_on_concludes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = Followed("b", list(HERE))
    for there in (TopicsError("silent"), HERE, TopicsError("silent"), HERE):
        check(followed, there, monkeypatch)
    assert followed.ids == {"ads": "id-1", "clicks": "id-2"}


def test_while_certificates_are_renewed_one_that_is_connected_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = Followed("b", list(HERE))
    half = ConnectionSettingsError("SALIENCE_SSL_CERT_FILE: key values mismatch")
    with capture_logs() as said:
        for there in (HERE, half, HERE):
            check(followed, there, monkeypatch)
    assert [line["error"] for line in said] == [str(half)]
    with pytest.raises(MadeAnewError):
        check(followed, HERE | {"ads": Found("id-of-another", 1)}, monkeypatch)


def test_a_topic_is_gone_once_a_broker_has_not_known_it_at_several_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    followed, less = Followed("b", list(HERE)), {"ads": HERE["ads"]}
    for there in (HERE, *[less] * (GONE_LOOKS - 1), HERE, *[less] * (GONE_LOOKS - 1)):
        check(followed, there, monkeypatch)
    with pytest.raises(MadeAnewError, match=r"^clicks: deleted or made anew"):
        check(followed, less, monkeypatch)


def test_another_topic_of_the_name_is_told_at_once_by_the_id_that_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = Followed("b", list(HERE), {"ads": "id-of-another-time"})
    with pytest.raises(MadeAnewError, match=r"^ads: deleted or made anew"):
        check(followed, HERE, monkeypatch)


def test_a_topic_that_has_got_partitions_is_told_at_every_check_unless_its_reader_reads_those_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed, subscribed = Followed("b", list(HERE)), Followed("b", list(HERE), subscribed=True)
    grown = HERE | {"ads": Found("id-1", 2)}
    for there in (HERE, grown):
        check(subscribed, there, monkeypatch)
    check(followed, HERE, monkeypatch)
    for _ in range(2):
        with pytest.raises(MorePartitionsError, match=r"^ads has 2 partitions, .* start again"):
            check(followed, grown, monkeypatch)
    check(followed, HERE, monkeypatch)  # as a node tells that has not heard of it yet


def test_a_topic_that_was_not_there_at_first_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = Followed("b", list(HERE))
    for there in ({"ads": HERE["ads"]}, HERE, HERE):
        check(followed, there, monkeypatch)
    assert followed.ids["clicks"] == "id-2"


def test_of_topics_without_ids_it_is_said_once_that_one_made_anew_cannot_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert str(Uuid(0, 0)) == NO_ID
    followed, nameless = Followed("b", list(HERE)), HERE | {"clicks": Found(NO_ID, 1)}
    with capture_logs() as said:
        for there in (nameless, nameless, HERE, nameless):  # as while brokers are upgraded, one after the other
            check(followed, there, monkeypatch)
    (line,) = said
    assert (line["log_level"], line["topics"]) == ("warning", ["clicks"])
    assert followed.ids == {"ads": "id-1", "clicks": "id-2"}
    with pytest.raises(MadeAnewError, match=r"^clicks: deleted or made anew"):
        check(followed, HERE | {"clicks": Found("id-3", 1)}, monkeypatch)


def test_a_topic_without_an_id_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = Followed("b", ["ads"])
    for there in ({"ads": Found(NO_ID, 1)}, *[dict[str, Found]()] * (GONE_LOOKS - 1)):
        check(followed, there, monkeypatch)
    with pytest.raises(MadeAnewError, match=r"^ads: deleted or made anew"):
        check(followed, {}, monkeypatch)


def test_a_topic_that_is_another_is_told_at_every_check_and_the_id_of_what_was_read_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever saves the ids between the check and the end would otherwise take the new topic for the one it read."""
    followed = Followed("b", ["ads"])
    check(followed, HERE, monkeypatch)
    for _ in range(2):
        with pytest.raises(MadeAnewError, match=r"^ads: deleted or made anew"):
            check(followed, {"ads": Found("id-9", 1)}, monkeypatch)
    assert followed.ids == {"ads": "id-1"}


def test_a_look_waits_for_no_answer_and_tells_what_an_earlier_check_has_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.followed.LOOK_S", 0.0)
    followed, answers, asked = Followed("b", ["ads"], {"ads": "id-of-another-time"}), threading.Event(), []

    def found(_: str, names: list[str]) -> dict[str, Found]:
        asked.append(names)
        assert answers.wait(10), "a look waited"
        return HERE

    async def scenario() -> None:
        monkeypatch.setattr("streams.topic_admin.found", found)
        for _ in range(3):
            followed.look()
            await asyncio.sleep(0)
        answers.set()
        while True:
            followed.look()
            await asyncio.sleep(0)

    with pytest.raises(MadeAnewError, match=r"^ads: deleted or made anew"):
        asyncio.run(scenario())
    assert asked == [["ads"]]


def test_who_leaves_waits_for_no_check_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr("streams.topic_admin.found", lambda *_: answers.wait(10))

    async def scenario() -> set[asyncio.Task[object]]:
        followed = Followed("b", ["ads"])
        followed.look()
        await asyncio.sleep(0)
        await followed.leave()
        return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    assert asyncio.run(scenario()) == set()
    answers.set()
