"""Who does not consent is in no experiment's books, and who withdraws or asks to be forgotten leaves them."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from aiokafka import TopicPartition

from scoring.ids import id64
from scoring.rows import LAYOUT_VERSION
from streams.control_wire import Consent, ControlMessage, Erasure
from streams.experiments.referee import Referee
from streams.experiments.registry import start
from streams.experiments.service import RefereeService
from streams.experiments.store import load, save
from streams.privacy.consent import Gate, Watermarks
from streams.settings import Settings
from streams.topics import CHANGELOG, CONTROL
from streams.wire import LANE_KEY, encode_json
from tests.builders import Record
from tests.unit.consenting import erasure, grant, refusal
from tests.unit.showing import placed, see
from tests.unit.test_duels import draft as duel_draft
from tests.unit.test_duels import outcome
from tests.unit.test_duels import shown as shown_both
from tests.unit.test_experiments import row, running, shown

DUEL = msgspec.structs.replace(start(duel_draft(), 1.0, 1), experiment="turns", number=2)
OLD_MS, ASKED_MS, NEW_MS = 10, 100, 200


def kept(time_ms: int, impressions: int, clicks: int) -> bytes:
    """A row as the changelog has it."""
    made = row(time_ms, impressions, clicks)
    made["version"] = LAYOUT_VERSION
    return made.tobytes()


def control_record(message: ControlMessage, offset: int) -> Record:
    """Its record, which came when the message was made."""
    return Record(CONTROL, 0, offset, getattr(message, "time_ms", 1), message.key, encode_json(message))


class Books:
    """A referee that reads what is on its topics, and what it has of ``u1``."""

    service: RefereeService

    def __init__(self, home: Path, *, presumed: bool = True) -> None:
        self._settings = Settings(home=home, consent_presumed=presumed)
        self._control: list[ControlMessage] = []
        self._changed: list[Record] = []
        self.restart(save_first=False)
        self.hear(running(), DUEL)

    def restart(self, *, save_first: bool = True) -> None:
        """Go on from the file, read the control topic whole, and the changelog from where it was."""
        if save_first:
            save(self.service.file, self.referee, self.service.offsets, {})
        self.service = RefereeService(self._settings, 0, lambda _: None)
        self.service._offsets, _ = load(self.service.file, self.referee)
        self._take_control(self._control, 0)
        self._take_changes(self.service._offsets.get((CHANGELOG, 0), 0))

    @property
    def referee(self) -> Referee:
        return self.service._referee

    def hear(self, *messages: ControlMessage) -> None:
        """Read further messages on the control topic."""
        self._take_control(messages, len(self._control))
        self._control += messages

    def _take_control(self, messages: Sequence[ControlMessage], offset: int) -> None:
        records = [control_record(one, offset + at) for at, one in enumerate(messages)]
        self.service._take_control({TopicPartition(CONTROL, 0): [*records]})

    def show(self, time_ms: int, consent: bool | None = None) -> None:
        """Show ``u1`` an ad of either experiment."""
        both = {"event_id": f"both-{time_ms}", "time_ms": time_ms, "consent": consent}
        see(
            self.referee,
            [
                encode_json(msgspec.json.decode(shown(1, 1, time_ms)) | {"consent": consent}),
                encode_json(msgspec.json.decode(shown_both(1, 0, "x")) | both | {"placement_id": placed("u1", (2, 2))}),
            ],
        )

    def change(self, *changes: tuple[bytes, bytes | None], whole: bool = True) -> None:
        """Read further records of the changelog: those of a slice, or as many of them as a fetch gave."""
        closed = [*changes, (LANE_KEY, b"")] if whole else changes
        begin = len(self._changed)
        self._changed += [Record(CHANGELOG, 0, begin + at, 1, *change) for at, change in enumerate(closed)]
        self._take_changes(begin)

    def _take_changes(self, offset: int) -> None:
        self.service._take_rows({TopicPartition(CHANGELOG, 0): [*self._changed[offset:]]})
        self.service._offsets[CHANGELOG, 0] = len(self._changed)

    def plays(self, time_ms: int) -> None:
        """``u1`` is shown an ad of either and clicks on both, and somebody else does too."""
        self.referee.take_rows([b"other"], row(time_ms, 5, 2))
        self.show(time_ms)
        self.change((b"u1", kept(time_ms, 2, 2)))
        self.referee.take_outcomes([outcome(f"both-{time_ms}", True, time_ms)])
        self.show(time_ms + 1)  # of this no outcome has been told

    def held(self) -> list[str]:
        """Where there is anything of ``u1``."""
        referee, (metrics, turns) = self.referee, (self.referee.watched[number] for number in (1, 2))
        places = np.flatnonzero(referee.people.ids == id64("u1")).tolist()
        (look,) = (one.last for one in referee.look() if one.setting.number == 1 and one.last is not None)
        assert turns.score is not None
        found = {
            "an id": places,
            "sums": referee.people.totals.sum() - referee.people.totals[referee.people.ids == id64("other")].sum(),
            "an arm": look.users.sum(),
            "an exposure": (metrics.exposed_arm >= 0).sum(),
            "when it was": metrics.exposed_ms.sum(),
            "people of a duel": turns.score.people,
            "clicks of a duel": sum(turns.score.clicks),
            "what waits": referee.credits.pending,
        }
        return [name for name, there in found.items() if there]


ALL = ["an id", "sums", "an arm", "when it was", "people of a duel", "clicks of a duel", "what waits"]


def watermark(user: bytes, until_ms: int) -> tuple[bytes, bytes]:
    (one,) = _raised(user, until_ms).parts().items()
    return one


def _raised(user: bytes, until_ms: int) -> Watermarks:
    marks = Watermarks()
    marks.raise_to(user, until_ms)
    return marks


@pytest.mark.parametrize("request_", [refusal("u1", ASKED_MS), erasure("u1", ASKED_MS)])
@pytest.mark.parametrize("restarts", [False, True])
def test_who_asks_on_the_control_topic_leaves_the_books_of_metrics_and_duels(
    request_: Consent | Erasure, restarts: bool, tmp_path: Path
) -> None:
    books = Books(tmp_path)
    books.plays(OLD_MS)
    assert books.held() == ALL
    books.hear(request_)
    assert books.held() == []
    books.show(OLD_MS + 5)  # read late
    books.change((b"u1", kept(OLD_MS + 5, 3, 2)))
    if restarts:
        books.restart()
    books.referee.take_outcomes([outcome(f"both-{OLD_MS + 1}", True, OLD_MS + 1)])
    assert books.held() == []
    assert books.referee.people.seen.sum() == 1  # somebody else is where they were
    assert not [*books.referee.erased.changes()]  # it has no changelog to tell


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
def test_who_says_no_on_an_event_leaves_the_books_with_the_lanes_tombstone(
    split: bool, restarts: bool, tmp_path: Path
) -> None:
    books = Books(tmp_path)
    books.plays(OLD_MS)
    changes = [(b"u1", kept(50, 9, 9)), (b"u1", None), watermark(b"u1", ASKED_MS)]
    for part in [changes[:2], changes[2:]] if split else [changes]:
        books.change(*part, whole=part[-1] == changes[-1])
        if restarts:
            books.restart()
    assert books.held() == []
    books.show(ASKED_MS - 1)
    assert books.held() == []


def test_a_slice_that_was_half_read_since_the_last_start_is_read_again_for_who_leaves_in_it(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.plays(OLD_MS)
    books.restart()
    books.change((b"u1", None), whole=False)
    books.restart()
    books.change(watermark(b"u1", ASKED_MS))
    assert books.held() == []


def test_a_refusal_dated_before_the_newest_row_takes_that_row_too(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.plays(OLD_MS)
    books.change((b"u1", kept(ASKED_MS + 5, 9, 9)))
    books.change((b"u1", kept(ASKED_MS + 6, 9, 9)), (b"u1", None), watermark(b"u1", ASKED_MS))
    assert books.held() == []


def test_who_says_no_and_comes_back_within_a_slice_is_somebody_new(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.plays(OLD_MS)
    books.change((b"u1", kept(NEW_MS, 1, 0)), watermark(b"u1", ASKED_MS))  # no tombstone: there is a row
    assert books.held() == ["an id", "sums"]
    assert books.referee.people.totals[books.referee.people.ids == id64("u1")][0, 1] == 1
    books.plays(NEW_MS + 1)
    assert books.held() == ALL


def test_who_was_forgotten_and_comes_back_is_somebody_new_and_stays_after_a_restart(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.plays(OLD_MS)
    books.hear(erasure("u1", ASKED_MS), refusal("u1", ASKED_MS), grant("u1", ASKED_MS + 1))
    assert books.held() == []
    users = books.referee.people.number
    books.plays(NEW_MS)
    for _ in range(2):
        assert books.held() == ALL
        assert books.referee.people.totals[books.referee.people.ids == id64("u1")][0, 1] == 2  # nothing of what was
        assert books.referee.people.number == users  # their place was free
        books.restart()


def test_whoever_comes_next_to_the_place_of_who_left_has_it_alone_and_empty(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.referee.take_ads(
        [(b"ad-1", encode_json({"category": "tents"})), (b"ad-2", encode_json({"category": "maps"}))]
    )
    books.plays(OLD_MS)
    books.change((b"u1", kept(OLD_MS + 1, 1, 0)))  # idle, forgotten and back: what was counted before is kept apart
    books.hear(erasure("u1", ASKED_MS), refusal("u1", ASKED_MS))
    for name in ("u2", "u3"):
        books.change((name.encode(), kept(NEW_MS, 1, 0)))
    see(books.referee, [shown(at, 1, NEW_MS + 1, ad="ad-2") for at in (2, 3)])
    for name in ("u2", "u3"):
        sums = books.referee.people.totals[books.referee.people.ids == id64(name)]
        assert sums.sum(axis=1).tolist() == [1 + 1]  # one impression that a row told, and one shown
    assert books.referee.people.number == 3


def test_a_consent_given_again_counts_from_its_own_time_on(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.hear(refusal("u1", ASKED_MS))
    books.hear(grant("u1", NEW_MS))
    books.show(NEW_MS - 1)
    books.restart()
    books.show(NEW_MS - 1)
    assert books.held() == []
    books.plays(NEW_MS + 1)
    assert books.held() == ALL


def test_a_referee_that_may_hold_nobody_more_takes_in_who_comes_after_somebody_left(tmp_path: Path) -> None:
    referee = Referee(users_max=1)
    referee.take_rows([b"u1"], row(OLD_MS, 1, 0))
    referee.forget([b"u1"])
    save(tmp_path / "x.npz", referee, {}, {})
    load(tmp_path / "x.npz", again := Referee(users_max=1))
    for each in (referee, again):
        each.take_rows([b"u2"], row(OLD_MS, 1, 0))
        assert (each.people.ids[: each.people.number].tolist(), each.people.unwatched) == ([id64("u2")], 0)


def test_the_map_of_people_holds_no_more_than_twice_who_is_there(tmp_path: Path) -> None:
    referee = Referee()
    for at in range(3_000):
        referee.take_rows([user := f"u{at}".encode()], row(OLD_MS, 1, 0))
        referee.forget([user])
    assert (referee.people.number, len(referee.people._places) < 1_100) == (1, True)


def test_who_consents_and_has_asked_for_nothing_else_stays_in_the_books(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.plays(ASKED_MS)
    books.hear(grant("u1", NEW_MS))
    assert books.held() == ALL
    books.change((b"u1", kept(ASKED_MS + 1, 3, 2)))
    assert books.referee.people.totals[books.referee.people.ids == id64("u1")][0, 1] == 3


def test_a_row_and_an_impression_of_the_moment_up_to_which_all_is_forgotten_are_passed_over(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.hear(erasure("u1", ASKED_MS))
    books.show(ASKED_MS)
    books.change((b"u1", kept(ASKED_MS, 3, 2)))
    assert books.held() == []
    books.plays(ASKED_MS + 1)
    assert books.held() == ALL


def test_who_is_idle_and_forgotten_by_nobodys_request_stays_in_the_books(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.plays(OLD_MS)
    books.change(watermark(b"other", ASKED_MS), (b"u1", None))
    assert books.held() == ALL
    mark = watermark(b"u1", ASKED_MS)
    books.change(mark, (mark[0], None), (b"u1", None))  # a watermark that the lane has dropped
    assert books.held() == ALL


def test_whose_row_begins_anew_stays_in_the_books_though_others_have_asked_to_be_forgotten(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.plays(OLD_MS)
    books.hear(erasure("other", ASKED_MS))
    books.change((b"u1", kept(NEW_MS, 1, 0)))  # idle, forgotten by nobody's request, and back
    assert books.held() == ALL
    assert books.referee.people.totals[books.referee.people.ids == id64("u1")][0, 1] == 2 + 1


@pytest.mark.parametrize(
    ("presumed", "said", "answer", "held"),
    [
        (True, None, None, True),
        (True, False, None, False),
        (False, None, None, False),
        (False, True, None, True),
        (False, None, grant("u1", 1), True),
        (True, True, refusal("u1", 1), False),
    ],
)
def test_an_impression_of_who_does_not_consent_leaves_nothing_in_the_books(
    presumed: bool, said: bool | None, answer: Consent | None, held: bool, tmp_path: Path
) -> None:
    books = Books(tmp_path, presumed=presumed)
    if answer is not None:
        books.hear(answer)
    books.show(OLD_MS, said)
    assert (bool(books.held()), bool(books.referee.latest)) == (held, held)


def test_who_was_shown_an_arm_and_is_in_no_row_yet_or_has_crossed_leaves_the_books(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.show(OLD_MS)
    assert "an exposure" in books.held()
    books.hear(erasure("u1", OLD_MS))
    assert books.held() == []
    books.plays(ASKED_MS)
    see(books.referee, [shown(1, 0, ASKED_MS + 2)])
    books.change((b"u1", kept(ASKED_MS + 2, 3, 2)))
    assert books.referee.watched[1].trial.crossed.sum() == 1
    books.hear(erasure("u1", ASKED_MS + 2))
    assert books.referee.watched[1].trial.crossed.sum() == 0


def test_who_was_in_no_experiment_is_forgotten_too(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.change((b"u1", kept(OLD_MS, 3, 2)))
    books.hear(erasure("u1", ASKED_MS))
    assert books.held() == []


def test_who_leaves_before_anybody_was_shown_an_experiment_that_has_just_begun_ends_no_referee() -> None:
    referee = Referee()
    referee.take_rows([b"u1"], row(OLD_MS, 1, 0))
    for setting in (running(), DUEL):
        referee.follow(setting)
    referee.forget([b"u1"])
    assert referee.people.totals.sum() == 0


def test_of_more_watermarks_than_may_be_held_those_go_that_end_first() -> None:
    held = Watermarks(most=8)
    for at in range(9):
        held.take(*watermark(f"u{at}".encode(), 100 - at))
    Referee(gate=Gate(watermarks=held)).bound()
    assert [held.of(f"u{at}".encode()) for at in (0, 7, 8)] == [100, 93, -1]


@pytest.mark.parametrize(("agreed_ms", "held"), [(OLD_MS, False), (NEW_MS, True)])
def test_where_people_opt_in_a_no_on_an_event_ends_an_older_consent(agreed_ms: int, held: bool, tmp_path: Path) -> None:
    books = Books(tmp_path, presumed=False)
    books.hear(grant("u1", agreed_ms))
    books.show(ASKED_MS, consent=False)
    books.restart()
    books.show(NEW_MS)
    assert bool(books.held()) is held
