"""What is held of a person is found wherever it stands, and can be read."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import mkdtemp
from typing import NoReturn

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from streams.cli import app
from streams.cli.privacy import _show
from streams.clock import wall_ms
from streams.control_wire import Erasure
from streams.lanes.clicks import person_key
from streams.lanes.snapshots import Snapshots, Writing, holds
from streams.letters import ORIGIN
from streams.message import Headers
from streams.privacy.held import (
    Looked,
    Search,
    SnapshotsError,
    Trace,
    _trace,
    readable,
    require_readable_snapshots,
    snapshots_with,
    verdict,
)
from streams.settings import Settings
from streams.step import LaneState
from streams.topics import (
    AD_IMPRESSIONS,
    ADS,
    CHANGELOG,
    CLICK_LAYERS,
    CLICKS,
    CONTROL,
    DEAD_LETTERS,
    DECISIONS,
    EXPERIMENT_REPORTS,
    LATE_EVENTS,
    PLACEMENTS,
    REVIEWS,
    TABLE,
    TONES,
)
from tests.builders import START_MS, Record

NOBODY = 65_534
"""The account of those who have none."""


def kept(key: bytes | None, value: bytes | None = b"{}") -> Record:
    return Record(CHANGELOG, 0, 0, 0, key, value)


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (kept(b"ann"), True),
        (kept(person_key(b"ann")), True),
        (kept(person_key(b"bob")), False),
        (kept(b"ann-2"), False),
        (kept(b"bob", b'{"user_id":"ann"}'), True),
        (kept(b"bob", b'{"user_id" :\n"ann"}'), True),
        (kept(b"bob", b'{"user_id":"ann-2"}'), False),
        (kept(b"bob", b'{"user_id":"bob","surface":"ann"}'), False),
        (kept(b"bob", b'{"user_id":"bob","ann":1'), False),
        (kept(None, b'{"surface":"ann"}'), False),
        (kept(None, b'{"usr":"ann","surf'), True),
    ],
)
def test_a_person_is_found_by_key_by_hash_and_by_name_and_nobody_by_another_word(record: Record, found: bool) -> None:
    assert Search(["ann"]).finds(record) is found


@pytest.mark.parametrize(
    ("topic", "headers", "found"),
    [
        *((each, (), True) for each in (CLICKS, AD_IMPRESSIONS, PLACEMENTS, DECISIONS, CHANGELOG, LATE_EVENTS)),
        *((each, (), False) for each in (ADS, REVIEWS, TONES, EXPERIMENT_REPORTS, CLICK_LAYERS, CONTROL)),
        *((DEAD_LETTERS, ((ORIGIN, b"eu-" + each),), True) for each in (b"clicks", b"ad-impressions", b"gone")),
        *((DEAD_LETTERS, headers, True) for headers in ((), ((ORIGIN, None),), ((ORIGIN, b"\xff"),))),
        *((DEAD_LETTERS, ((ORIGIN, b"eu-" + each),), False) for each in (b"ads", b"reviews", b"control")),
    ],
)
def test_an_ad_of_a_persons_name_is_nothing_of_the_person(topic: str, headers: Headers, found: bool) -> None:
    finds = Search(["17"], "eu-").finds
    assert finds(Record("eu-" + topic, 0, 0, 0, b"17", b'{"ad_id":"17"}', headers)) is found
    assert finds(Record("eu-" + topic, 0, 0, 0, b"other", b'{"user_id":"17"}', headers))


@pytest.mark.parametrize(("topic", "found"), [(CONTROL, True), (PLACEMENTS, False), (CLICKS, False), (ADS, False)])
def test_a_person_whose_name_is_that_of_a_request_is_not_who_asked(topic: str, found: bool) -> None:
    asked = Erasure(user_id="ann", time_ms=3).key
    assert Search(["ann"]).finds(Record(topic, 0, 0, 0, asked, b"{}")) is found
    refused = Record(DEAD_LETTERS, 0, 0, 0, asked, b"{}", ((ORIGIN, topic.encode()),))
    assert Search(["ann"]).finds(refused) is found


def test_a_person_is_found_by_any_of_their_pseudonyms() -> None:
    for name in ("ann", "a-ann"):
        found = Search(["ann", "a-ann"]).finds
        assert found(kept(name.encode()))
        assert found(kept(b"bob", b'{"user_id":"%b"}' % name.encode()))


@pytest.mark.parametrize(
    ("user", "value", "found"),
    [
        ("zoë", rb'{"user_id":"zo\u00eb"}', True),
        ("zoë", rb'{"user_id":"zo\u00EB"}', True),
        ("zoë", rb'{"user_id":"zo\u00eb", cut sh', True),
        ("zoë", rb'{"user_id":"zo\\u00eb"}', False),
        ("zoë", rb'{"user_id":"zo\u00ea"}', False),
        ("shop/17", rb'{"user_id":"shop\/17"}', True),
        ("ann", rb'{"user_id":"\u0061nn"}', True),
        ("ann🙂", rb'{"user_id":"ann\ud83d\ude42"}', True),
        ("ann", rb'{"title":"\ud83d","user_id":"ann"}', True),
        ('an"n', rb'{"user_id":"an\u0022n"}', True),
        ("a\\n", rb'{"user_id":"a\u005cn"}', True),
    ],
)
def test_a_person_is_found_however_json_spells_the_name(user: str, value: bytes, found: bool) -> None:
    assert Search([user]).finds(kept(b"bob", value)) is found


@pytest.mark.parametrize("since", [[], [0.0], [7.0]], ids=["former", "first", "later"])
def test_what_a_click_layer_has_learned_of_a_person_is_told_in_words(since: list[float]) -> None:
    told = {"clicks": 2.0, "clicks_expected": 1.25, "since_impression": sum(since)}
    assert readable(CHANGELOG, np.array([2.0, 1.25, *since]).tobytes()) == told


def test_the_note_of_a_placement_of_somebody_who_is_not_remembered_is_told_in_words() -> None:
    assert readable(CHANGELOG, START_MS.to_bytes(8, "big")) == {"placement_ends_ms": START_MS}


def test_what_is_on_a_topic_that_keeps_everything_is_not_said_to_go(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    kept, compacted = (
        Trace(topic=name, current=1, former=0, tombstones=0, requests=0, newest_ms=1, goes_ms=None)
        for name in ("clicks", CHANGELOG)
    )
    _show([kept, compacted], looked(Path("home"), 0), gone=False)
    lines = capsys.readouterr().out.splitlines()
    assert ["never: no retention" in line for line in lines if "clicks" in line] == [True]
    assert ["by compaction" in line for line in lines if CHANGELOG in line] == [True]


def test_what_is_held_breaks_no_name_and_no_time_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    traces = [
        Trace(topic=topic.name, current=99_999, former=999, tombstones=9, requests=9, newest_ms=START_MS, goes_ms=goes)
        for topic, goes in zip(TABLE, cycle([START_MS, None]), strict=False)
    ]
    _show(traces, looked(Path("home"), 0), gone=False)
    words = set(capsys.readouterr().out.split())
    assert {*(trace.topic for trace in traces), "tombstones", "requests", "2023-11-14", "22:13:20Z"} <= words


def test_what_cannot_be_read_is_told_as_it_is() -> None:
    assert readable(CHANGELOG, b"\xff torn") == "\\xff torn"
    assert readable(CHANGELOG, None) is None


def trace(topic: str, *found: tuple[bytes, bool, int]) -> Trace:
    requests = Search(["ann"]).requests
    return _trace(next(each for each in TABLE if each.name == topic), found, requests, 1_000)


def test_of_a_compacted_topic_the_newest_record_of_a_key_is_current_and_what_it_replaced_former() -> None:
    told = trace(CHANGELOG, (b"ann", True, 1), (b"ann", True, 2), (person_key(b"ann"), True, 3), (b"ann", True, 4))
    assert (told.current, told.former, told.tombstones, told.held) == (2, 2, 0, 4)
    assert (told.newest_ms, told.goes_ms) == (4, None)  # compaction keeps the newest for ever
    erased = trace(CHANGELOG, (b"ann", True, 1), (b"ann", False, 5))
    assert (erased.current, erased.former, erased.tombstones, erased.held) == (0, 1, 1, 1)
    assert erased.newest_ms == 1
    gone = trace(CHANGELOG, (b"ann", False, 5))
    assert not verdict([erased, gone], looked(Path("home"), 3))  # until compaction has been there
    assert verdict([gone], looked(Path("home"), 3))


def test_of_a_topic_that_keeps_everything_all_is_current_until_its_retention_ends() -> None:
    told = trace("clicks", (b"ann", True, 1), (b"ann", True, 2))
    assert (told.current, told.former, told.goes_ms) == (2, 0, 1_002)
    assert trace("clicks").goes_ms is None


def of_nobody_yet(home: Path) -> tuple[Settings, Snapshots, LaneState]:
    """Snapshots, the lane's newest of which holds nobody, and the lane as it is now, with a person in it."""
    settings, state = Settings(home=home), LaneState(0, ("a", "b"), 1)
    state.store.row_of(b"gone")
    snapshots = Snapshots(settings, "changelog-1")
    snapshots.save(LaneState(0, ("a", "b"), 1), 0, wall_ms())
    return settings, snapshots, state


def test_a_snapshot_that_its_worker_finishes_meanwhile_is_looked_for_under_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, snapshots, state = of_nobody_yet(tmp_path)
    writing = snapshots.begin(state, 0, wall_ms())
    renamed = iter([True])

    def look(path: Path, users: Sequence[bytes]) -> bool:
        if next(renamed, False):
            writing.advance(state.store, 0)
        return holds(path, users)

    monkeypatch.setattr("streams.privacy.held.holds", look)
    assert snapshots_with(settings, ["gone"]) == looked(tmp_path, 1, snapshots.path(0))
    assert snapshots_with(settings, ["nobody"]) == looked(tmp_path, 1)


def test_a_snapshot_that_its_worker_begins_and_finishes_meanwhile_is_looked_at_again_under_a_name_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, snapshots, state = of_nobody_yet(tmp_path)
    under_way: list[Writing] = []

    def look(path: Path, users: Sequence[bytes]) -> bool:
        if path.suffix == ".part":
            under_way[0].advance(state.store, 0)
        held = holds(path, users)
        if not under_way:
            under_way.append(snapshots.begin(state, 0, wall_ms()))
        return held

    monkeypatch.setattr("streams.privacy.held.holds", look)
    assert snapshots_with(settings, ["gone"]) == looked(tmp_path, 1, snapshots.path(0))


def test_a_link_that_leads_nowhere_is_no_snapshot_and_is_not_followed_for_ever(tmp_path: Path) -> None:
    settings, state = Settings(home=tmp_path), LaneState(0, ("a", "b"), 1)
    state.store.row_of(b"gone")
    snapshots = Snapshots(settings, "changelog-1")
    snapshots.save(state, 0, wall_ms())
    snapshots.path(9).symlink_to(tmp_path / "nowhere")
    require_readable_snapshots(settings)
    assert snapshots_with(settings, ["gone"]) == looked(tmp_path, 1, snapshots.path(0))


def test_a_disk_that_does_not_answer_is_not_taken_for_one_that_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(_path: object) -> NoReturn:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    settings = Settings(home=tmp_path)
    Snapshots(settings, "changelog-1").save(LaneState(0, ("a", "b"), 1), 0, wall_ms())
    monkeypatch.setattr(os, "scandir", stale)
    for look in (require_readable_snapshots, partial(snapshots_with, users=["gone"])):
        with pytest.raises(SnapshotsError, match=re.escape(os.strerror(errno.ESTALE))):
            look(settings)


def looked(home: Path, count: int, *holding: Path) -> Looked:
    return Looked(folder=home / "snapshots" / "salience", count=count, holding=[*holding])


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that whoever may read."""
    made = Path(mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@contextmanager
def closed(path: Path) -> Iterator[None]:
    """``path`` closed to us: root, to whom nothing is, is nobody meanwhile."""
    mode, root = path.stat().st_mode, os.geteuid() == 0
    path.chmod(0)
    try:
        if root:
            os.seteuid(NOBODY)
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode)


@pytest.mark.parametrize("name", ["snapshots", "snapshots/salience", "snapshots/salience/lane-0.snapshot"])
def test_a_snapshot_that_may_not_be_read_is_not_taken_for_one_that_holds_nobody(home: Path, name: str) -> None:
    settings, state = Settings(home=home), LaneState(0, ("a", "b"), 1)
    state.store.row_of(b"gone")
    Snapshots(settings, "changelog-1").save(state, 0, wall_ms())
    for folder in (home / "snapshots", home / "snapshots" / "salience"):
        folder.chmod(0o755)
    for look in (require_readable_snapshots, partial(snapshots_with, users=["gone"])):
        with closed(home / name), pytest.raises(SnapshotsError, match=rf"{home / name}.* run this as the workers' acc"):
            look(settings)


@pytest.mark.parametrize("machine", [True, False])
def test_nothing_is_proved_and_no_topic_read_where_snapshots_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: bool
) -> None:
    def refused(folder: Path) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    (tmp_path / "snapshots" / "salience").mkdir(parents=True)
    monkeypatch.setattr("streams.privacy.held.listed", refused)
    monkeypatch.setattr("streams.privacy.held.traces", None)  # calling it would be another failure
    how = ["--json"] if machine else []
    told = CliRunner().invoke(app, ["privacy", "prove", "gone", *how], env={"SALIENCE_HOME": str(tmp_path)})
    assert (told.exit_code, type(told.exception)) == (1, SystemExit)
    assert "Permission denied" in (json.loads(told.stdout)["error"] if machine else told.stderr)
    assert "Nothing is left" not in told.output


def proved(home: Path, monkeypatch: pytest.MonkeyPatch, *how: str) -> Result:
    """What is told where the topics hold nothing."""

    async def traces(*_: object) -> list[Trace]:
        return []

    monkeypatch.setattr("streams.privacy.held.traces", traces)
    return CliRunner().invoke(app, ["privacy", "prove", "gone", *how], env={"SALIENCE_HOME": str(home)})


@pytest.mark.parametrize("machine", [True, False])
@pytest.mark.parametrize("none_here", [True, False])
def test_nothing_is_proved_where_there_is_no_folder_of_snapshots_unless_it_is_said_that_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: bool, none_here: bool
) -> None:
    told = proved(tmp_path, monkeypatch, *["--json"] * machine, *["--no-snapshots"] * none_here)
    assert told.exit_code == (not none_here)
    assert ("Nothing is left." in told.stdout or '"gone":true' in told.stdout) == none_here
    if not none_here:
        error = json.loads(told.stdout)["error"] if machine else told.stderr
        assert f"{tmp_path / 'snapshots' / 'salience'} is no folder of snapshots" in error
        assert all(name in error for name in ("SALIENCE_HOME", "SALIENCE_GROUP", "--prefix", "--no-snapshots"))


@pytest.mark.parametrize("how", [[], ["--no-snapshots"]])
def test_a_proof_tells_how_many_snapshots_were_read_and_where_and_reads_those_that_are_said_to_be_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    snapshots = Snapshots(Settings(home=Path(".salience")), "changelog-1")
    monkeypatch.chdir(tmp_path)
    states = [LaneState(lane, ("a", "b"), 1) for lane in range(2)]
    for state in states:
        snapshots.save(state, 0, wall_ms())
    folder = tmp_path / ".salience" / "snapshots" / "salience"
    said = proved(Path(".salience"), monkeypatch, *how)
    assert (said.exit_code, f"Snapshots read: 2, in {folder}." in said.stdout) == (0, True)
    states[1].store.row_of(b"gone")
    snapshots.save(states[1], 0, wall_ms())
    said = proved(Path(".salience"), monkeypatch, "--json", *how)
    told = {"snapshots": [f"{folder}/lane-1.snapshot"], "snapshots_read": 2, "snapshots_folder": str(folder)}
    assert (said.exit_code, json.loads(said.stdout)) == (1, {"gone": False, "topics": [], **told})


def test_what_a_person_has_asked_for_stays_and_is_nothing_that_is_held() -> None:
    asked = Erasure(user_id="ann", time_ms=3).key
    told = trace(CONTROL, (asked, True, 3))
    assert (told.requests, told.held) == (1, 0)
    assert verdict([told], looked(Path("home"), 3))
    named = trace(CONTROL, (asked, True, 3), (b"another", True, 4))
    assert (named.requests, named.held) == (1, 1)
    elsewhere = trace("dead-letters", (asked, True, 3))  # one that was refused, say
    assert (elsewhere.requests, elsewhere.held) == (0, 1)
