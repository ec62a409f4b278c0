"""What a reader concludes from the ids of its topics, and what it does not."""

import asyncio
import threading
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Uuid
from structlog.testing import capture_logs

from streams.connection import ConnectionSettingsError
from streams.followed import GONE_LOOKS, NO_ID, Followed, MadeAnewError, MorePartitionsError
from streams.hearing import DEAF_S, PAUSE_S
from streams.topic_admin import Found, ShutOutError, TopicsError

HERE = {"ads": Found("id-1", 1), "clicks": Found("id-2", 1)}
HELD = (TopicPartition("ads", 0), TopicPartition("clicks", 0))


class Reader(AIOKafkaConsumer):
    """One that was last answered as ``answers`` say, made without a connection."""

    def __init__(self) -> None:
        self.answers = dict.fromkeys(HELD, 7)

    def __del__(self) -> None: ...

    def last_poll_timestamp(self, tp: TopicPartition) -> int:
        return self.answers[tp]


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
        assert followed.is_unanswered == (there is not HERE)
    assert followed.ids == {"ads": "id-1", "clicks": "id-2"}


def test_of_topics_whose_ids_are_known_those_alone_that_are_followed_are_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    followed = Followed("b", ["ads"], {"ads": "id-1", "clicks": "id-2"})
    for _ in range(GONE_LOOKS):
        check(followed, {"ads": HERE["ads"]}, monkeypatch)


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
        assert answers.wait(60), "a look waited"
        return HERE

    async def scenario() -> None:
        monkeypatch.setattr("streams.topic_admin.found", found)
        for _ in range(3):
            followed.look(Reader(), HELD)
            await asyncio.sleep(0)
        answers.set()
        while True:
            followed.look(Reader(), HELD)
            await asyncio.sleep(0)

    with pytest.raises(MadeAnewError, match=r"^ads: deleted or made anew"):
        asyncio.run(scenario())
    assert asked == [["ads"]]


async def test_after_a_check_that_has_found_nothing_a_look_begins_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.followed.LOOK_S", 0.0)
    followed, answers = Followed("b", ["ads"]), iter([HERE, {"ads": Found("id-of-another", 1)}])
    monkeypatch.setattr("streams.topic_admin.found", lambda *_: {"ads": next(answers)["ads"]})

    async def look() -> None:
        while True:
            followed.look(Reader(), HELD)
            await asyncio.sleep(0)

    with pytest.raises(MadeAnewError, match=r"^ads: deleted or made anew"):
        await asyncio.wait_for(look(), 60)


async def test_who_leaves_waits_for_no_check_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr("streams.topic_admin.found", lambda *_: answers.wait(60))
    followed = Followed("b", ["ads"])
    followed.look(Reader(), HELD)
    await asyncio.sleep(0)
    await followed.leave()
    assert ({task for task in asyncio.all_tasks() if task is not asyncio.current_task()}) == set()
    answers.set()


class Listening:
    """A reader that has begun with the password of a file, and looks by a clock of its own."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now_s, self._patch, self.file, self.reader = 100.0, monkeypatch, file, Reader()
        file.write_text("first")
        told = {"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "SASL_USERNAME": "ann", "SASL_PASSWORD_FILE": str(file)}
        for name, value in told.items():
            monkeypatch.setenv(f"SALIENCE_{name}", value)
        self.followed = Followed("b", list(HERE), clock=lambda: self._now_s)
        monkeypatch.setattr("streams.followed.LOOK_S", 1e9)  # it checks where a test says so
        check(self.followed, HERE, monkeypatch)

    def goes_by(self, seconds: float, *, looks_every_s: float = PAUSE_S) -> None:
        for _ in range(round(seconds / looks_every_s)):
            self._now_s += looks_every_s
            self.followed.look(self.reader, HELD)

    def check(self, there: dict[str, Found] | Exception = HERE) -> None:
        check(self.followed, there, self._patch)


@pytest.fixture
def listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Listening:
    return Listening(tmp_path / "password", monkeypatch)


OUT = ShutOutError("b does not let this process in")


def test_a_reader_that_is_shut_out_and_hears_nothing_ends_with_what_the_brokers_say(listening: Listening) -> None:
    listening.goes_by(1)  # the first look hears
    with capture_logs() as said:
        listening.check(OUT)
    assert [(line["log_level"], line["error"]) for line in said] == [("warning", str(OUT))]
    listening.goes_by(DEAF_S)
    with pytest.raises(ShutOutError, match="does not let this process in"):
        listening.check(OUT)


def test_a_reader_that_is_still_answered_goes_on_though_nobody_new_is_let_in(listening: Listening) -> None:
    for tp in HELD * 20:
        listening.goes_by(DEAF_S - 1)
        listening.check(OUT)
        listening.reader.answers[tp] += 500


def test_a_reader_that_is_deaf_with_the_password_of_its_start_ends_once_another_is_let_in(
    listening: Listening,
) -> None:
    listening.file.write_text("second")
    listening.goes_by(2)
    listening.check()
    listening.goes_by(DEAF_S)
    with pytest.raises(ShutOutError, match="the password was changed since this process began: start it again"):
        listening.check()


def test_a_reader_whose_password_holds_waits_for_brokers_for_ever(listening: Listening) -> None:
    for there in (HERE, TopicsError("silent"), HERE):
        listening.goes_by(10 * DEAF_S)
        listening.check(there)


@pytest.mark.parametrize("pause_s", [DEAF_S, 1_000 * DEAF_S], ids=["busy", "stopped"])
def test_a_reader_that_does_not_look_for_long_is_not_taken_for_deaf(listening: Listening, pause_s: float) -> None:
    listening.goes_by(1)
    listening.goes_by(3 * pause_s, looks_every_s=pause_s)
    listening.check(OUT)


def test_brokers_that_were_away_have_time_to_answer_a_reader_before_it_is_taken_for_deaf(
    listening: Listening,
) -> None:
    listening.file.write_text("second")
    listening.goes_by(10 * DEAF_S)
    listening.check(TopicsError("silent"))
    listening.goes_by(DEAF_S - 1)
    listening.check()
