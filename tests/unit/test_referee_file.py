"""The referee's file: what is read back is all that was known, to the last user and bit."""

from pathlib import Path
from typing import Any, cast
from zipfile import ZipFile

import msgspec
import numpy as np
import pytest

from scoring.ids import id64
from streams.control_wire import ExperimentSetting
from streams.experiments.referee import Referee
from streams.experiments.registry import start, stop
from streams.experiments.store import StoreError, load, save
from streams.wire import encode_json
from tests.unit.consenting import erasure, grant, refusal
from tests.unit.showing import see
from tests.unit.test_duels import draft as duel_draft
from tests.unit.test_duels import outcome, played
from tests.unit.test_duels import shown as shown_both
from tests.unit.test_experiments import row, running, shown

DUEL = start(duel_draft(), 1.0, 1)
METRICS = msgspec.structs.replace(running(), experiment="metrics", number=2)
ENDED = msgspec.structs.replace(running(), experiment="ended", number=3)


def settings() -> tuple[ExperimentSetting, ...]:
    return DUEL, METRICS, ENDED


def busy() -> Referee:
    """One that has something of everything in its books."""
    referee, draw = Referee(users_max=900), np.random.default_rng(5)
    for setting in settings():
        referee.follow(setting)
    referee.take_ads([(ad, encode_json({"category": ad.decode()})) for ad in (b"shoes", b"hats")])
    played(referee, range(300, 600), 0.7)  # who are in no row
    names, arms = (
        [f"u{user}".encode() for user in range(300)],
        (draw.random(300) < 0.65).astype(int),
    )  # more than are meant for it
    referee.take_rows(names, np.concatenate([row(1, 5, 2)] * 300))
    for number in (2, 3):
        told = [shown(user, int(arms[user]), 10 + number, number=number, ad="shoes") for user in range(300)]
        see(referee, told)
    rows = np.concatenate([row(20, 15, 0)] * 300)
    rows["answered_clicks"] = 2 + draw.binomial(8, np.array([0.5, 0.2])[arms])
    referee.take_rows(names, rows)
    referee.take_rows(names[:5], np.concatenate([row(30, 1, 1)] * 5))  # forgotten while idle, and back
    see(referee, [shown(1, 1 - int(arms[1]), 40, number=2, ad="hats")])
    referee.take_rows(names[1:2], row(41, 3, 1))  # who has crossed
    told = [shown(user, 1, 50 + at, number=2, ad=("hats", "shoes")[at]) for user in range(600, 610) for at in (0, 1)]
    see(referee, [shown(user, 0, 45, number=2) for user in range(600, 610)])
    see(referee, [*told, shown_both(1, 0, "waits"), b"{", b"{", b"{"])
    see(referee, [shown(610, 1, 54, number=3), shown(610, 1, 55, number=2)])
    referee.take_rows([b"u610"], row(56, 400, 30))  # whose past was not seen
    referee.take_rows([f"more{user}".encode() for user in range(300)], np.concatenate([row(60, 1, 0)] * 300))
    referee.look()
    referee.follow(stop(ENDED, "enough", 70))
    referee.settle([refusal("u9", 80), refusal("u8", 81), grant("u9", 90)], 17)
    referee.erased.say_no(b"u8", 83)
    referee.look()
    return referee


def kept(referee: Referee) -> dict[str, Any]:
    """All that a referee is to know again."""
    people = referee.people
    found: dict[str, Any] = {
        name: getattr(people, name)[: people.number] for name in ("ids", "totals", "gone", "category", "seen")
    }
    found |= {
        name: getattr(referee.watched[2], name)[: people.number]
        for name in ("exposed_arm", "exposed_ms", "exposed_after", "other_ms")
    }
    trial, duel = referee.watched[2].trial, referee.watched[1].duel
    assert duel is not None
    found |= {name: getattr(trial, name)[: people.number] for name in ("arm", "before", "crossed", "blank")}
    found |= {name: getattr(trial, name) for name in ("widths", "evidence", "split_evidence", "shares")}
    found |= {name: getattr(duel, name)[: people.number] for name in ("credit", "shown")}
    found |= {"width": duel.width, "duel's evidence": duel.evidence, "pending": referee.credits.pending}
    found |= {"early": [*referee.credits.early]}
    found |= {
        "latest": [*referee.latest.items()],
        "until": referee.erased.until_ms,
        "noes": referee.erased.no_ms,
        "settled": referee.settled,
    }
    return found | {"malformed": referee.malformed, "unwatched": people.unwatched}


def test_all_that_a_referee_knows_is_read_back_from_its_file(tmp_path: Path) -> None:
    referee = busy()
    for number, watched in referee.watched.items():
        watched.judged_ms = 70 + number
    save(tmp_path / "x.npz", referee, {}, {})
    load(tmp_path / "x.npz", again := Referee(users_max=900))
    before, after = kept(referee), kept(again)
    for name, one in before.items():
        known = one if np.ndim(one) else [one]
        assert np.any(np.asarray(known) != 0), f"nothing of {name} is known: it may be lost"
        np.testing.assert_array_equal(after[name], one, err_msg=name)
    assert before["malformed"] != before["unwatched"]
    for number, watched in referee.watched.items():
        other = again.watched[number]
        assert (other.setting, other.score) == (watched.setting, watched.score)
        assert watched.last is not None
        assert other.last is not None
        assert other.last.users.tolist() == watched.last.users.tolist()
        assert msgspec.structs.astuple(other.setting) == msgspec.structs.astuple(watched.setting)
        assert (other.last.values, other.last.differences) == (watched.last.values, watched.last.differences)
        assert (other.last.crossed, other.last.variances) == (watched.last.crossed, watched.last.variances)
        assert (other.last.lacks, other.last.heaviest) == (watched.last.lacks, watched.last.heaviest)
        assert other.judged_ms == watched.judged_ms
        assert (other.unwatched_before, other.unwatched) == (watched.unwatched_before, watched.unwatched)
    assert any(one.unwatched != one.unwatched_before for one in referee.watched.values())


def test_who_leaves_is_not_in_the_file_by_what_they_were_shown_lately_either(tmp_path: Path) -> None:
    referee = busy()
    shown_before = len(referee.latest)
    referee.settle([erasure("u610", 90)], 18)
    save(tmp_path / "x.npz", referee, {}, {})
    load(tmp_path / "x.npz", again := Referee(users_max=900))
    with np.load(tmp_path / "x.npz") as saved:
        assert id64("u610") not in saved["latest_of"]
        assert len(saved["latest"]) == len(again.latest) == shown_before - 2


def test_of_a_file_that_does_not_tell_whose_the_latest_impressions_were_these_are_dropped(tmp_path: Path) -> None:
    referee = busy()
    save(tmp_path / "x.npz", referee, {}, {})
    with np.load(tmp_path / "x.npz") as saved:
        former = {name: saved[name] for name in saved if name != "latest_of"}
    np.savez(tmp_path / "x.npz", **former)
    load(tmp_path / "x.npz", again := Referee(users_max=900))
    assert again.latest == {}
    assert again.people.number == referee.people.number


def test_a_referee_that_is_restarted_judges_what_comes_as_the_one_that_was_not(tmp_path: Path) -> None:
    referee = busy()
    save(tmp_path / "x.npz", referee, {}, {})
    load(tmp_path / "x.npz", again := Referee(users_max=900))
    names = [f"u{user}".encode() for user in range(610)]
    for one in (referee, again):
        one.take_ads([(ad, encode_json({"category": ad.decode()})) for ad in (b"shoes", b"hats")])
        one.take_rows(names, np.concatenate([row(49, 4, 1)] * 610))  # before some exposures
        one.take_rows(names, np.concatenate([row(90, 9, 5)] * 610))
        see(one, [shown(user, 1, 95, number=2, ad="hats") for user in range(610)])
        one.take_outcomes([outcome("waits", True)])
        one.look()
    for name, known in kept(referee).items():
        np.testing.assert_array_equal(kept(again)[name], known, err_msg=name)
    for number, watched in referee.watched.items():
        other = again.watched[number]
        assert other.score == watched.score
        assert other.last is not None
        assert watched.last is not None
        assert other.last.values == watched.last.values


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file, unwritable = tmp_path / "x.npz", {"impressions": cast("str", object())}
    save(file, busy(), {("impressions", 0): 7}, {})
    with pytest.raises(TypeError):
        save(file, Referee(), {}, unwritable)
    assert load(file, again := Referee()) == ({("impressions", 0): 7}, {})
    assert again.people.number == 900


def test_of_a_file_that_does_not_tell_who_was_shown_another_arm_nobody_has_crossed_for_that(tmp_path: Path) -> None:
    referee, file = busy(), tmp_path / "x.npz"
    crossed = {number: referee.watched[number].trial.crossed.sum() for number in (2, 3)}
    assert crossed[2] > 0
    save(file, referee, {}, {})
    with np.load(file) as npz:
        saved = {name: npz[name] for name in npz if not name.endswith(".other_ms")}
    np.savez(file, allow_pickle=False, **saved)
    load(file, again := Referee(users_max=900))
    users = [f"u{user}".encode() for user in range(600)]
    again.take_rows(users, np.concatenate([row(99, 30, 1)] * len(users)))
    assert {number: again.watched[number].trial.crossed.sum() for number in (2, 3)} == crossed


@pytest.mark.parametrize("version", [3, 6])
def test_a_file_of_neither_this_version_nor_the_former_is_refused_with_the_way_out(
    version: int, tmp_path: Path
) -> None:
    save(file := tmp_path / "x.npz", busy(), {}, {})
    with np.load(file) as npz:
        saved = dict(npz)
    about = msgspec.json.decode(saved["about"].tobytes()) | {"version": version}
    np.savez(file, allow_pickle=False, **saved | {"about": np.frombuffer(encode_json(about), dtype=np.uint8)})
    with pytest.raises(StoreError, match=f"has version {version}, expected 5; delete it to start anew"):
        load(file, again := Referee(users_max=900))
    assert not again.watched


def test_of_a_file_with_any_damage_the_referee_says_which_and_the_way_out(tmp_path: Path) -> None:
    """In the zip's directory and the arrays' heads: numbers in the arrays have checksums."""
    referee = Referee()
    referee.follow(METRICS)
    save(file := tmp_path / "x.npz", referee, {("impressions", 0): 7}, {})
    whole = file.read_bytes()
    with ZipFile(file) as stored:
        heads = [info.header_offset + at for info in stored.infolist() for at in range(180)]
        places = [at for at in [*heads, *range(stored.start_dir, len(whole))] if at < len(whole)]
    draw, refused = np.random.default_rng(7), 0
    for at in draw.choice(places, 300, replace=False).tolist():
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(draw.integers(8))
        file.write_bytes(damaged)
        try:
            load(file, Referee())
        except StoreError as error:
            refused += 1
            assert str(error).startswith(f"{file} cannot be read (")  # noqa: PT017 - some damage is to what nobody reads
    assert refused > 150


@pytest.mark.parametrize("name", ["now_ms", "offsets", "experiments", "unwatched_users"])
def test_a_file_that_does_not_tell_all_it_should_is_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    save(file := tmp_path / "x.npz", busy(), {}, {})
    with np.load(file) as npz:
        saved = dict(npz)
    about = msgspec.json.decode(saved["about"].tobytes())
    del about[name]
    np.savez(file, allow_pickle=False, **saved | {"about": np.frombuffer(encode_json(about), dtype=np.uint8)})
    with pytest.raises(StoreError, match=r"cannot be read .*; delete it to start anew from the topics"):
        load(file, Referee(users_max=900))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("totals", np.zeros((900, 3))),
        ("seen", np.zeros(899, dtype=np.bool_)),
        ("category", np.full(900, "x")),
        ("2.arm", np.full(900, 99, dtype=np.int8)),
        ("2.crossed", np.zeros(899, dtype=np.bool_)),
        ("2.exposed_arm", np.full(900, 2, dtype=np.int8)),
        ("2.exposed_after", np.zeros((900, 2, 2))),
        ("2.other_ms", np.zeros(900)),
        ("1.credit", np.zeros((512, 3))),
        ("1.shown", np.zeros(901, dtype=np.bool_)),
        ("pending", np.zeros(4)),
        ("early", np.array(["x"])),
        ("erased", np.zeros((2, 3), dtype=np.uint64)),
    ],
)
def test_a_file_with_an_array_that_is_not_as_it_was_saved_is_refused_before_the_referee_works(
    name: str, array: np.ndarray, tmp_path: Path
) -> None:
    save(file := tmp_path / "x.npz", busy(), {}, {})
    with np.load(file) as npz:
        saved = dict(npz)
    np.savez(file, allow_pickle=False, **saved | {name: array})
    with pytest.raises(StoreError, match=r"cannot be read .*; delete it to start anew from the topics"):
        load(file, Referee(users_max=900))


def test_a_click_that_is_read_before_its_impression_is_credited_though_the_referee_is_started_again_between(
    tmp_path: Path,
) -> None:
    referee = Referee()
    referee.follow(DUEL)
    referee.take_outcomes([outcome("early", True)])
    save(tmp_path / "x.npz", referee, {}, {})
    load(tmp_path / "x.npz", again := Referee())
    for one in (referee, again):
        see(one, [shown_both(1, 0, "early")])
        (watched,) = one.look()
        assert watched.score is not None
        assert sum(watched.score.clicks) == 1


def test_a_file_that_tells_no_early_clicks_is_read(tmp_path: Path) -> None:
    save(tmp_path / "x.npz", busy(), {}, {})
    with np.load(tmp_path / "x.npz") as npz:
        saved = dict(npz)
    del saved["early"]
    np.savez(tmp_path / "x.npz", allow_pickle=False, **saved)
    load(tmp_path / "x.npz", again := Referee(users_max=900))
    assert (again.people.number, len(again.credits.early)) == (900, 0)


def test_the_watermarks_of_a_file_that_tells_no_noes_are_read(tmp_path: Path) -> None:
    referee = busy()
    save(file := tmp_path / "x.npz", referee, {}, {})
    with np.load(file) as npz:
        saved = dict(npz)
    assert saved.pop("no_ms").max() == 83
    np.savez(file, **saved)
    load(file, again := Referee(users_max=900))
    assert (again.erased.until_ms, again.erased.no_ms) == (referee.erased.until_ms, {})


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["totals", "gone", "2.before", "2.exposed_after", "1.credit"])
def test_a_sum_that_is_no_number_is_refused_by_name_since_it_would_silence_its_whole_arm(
    name: str, number: float, tmp_path: Path
) -> None:
    save(file := tmp_path / "x.npz", busy(), {}, {})
    with np.load(file) as npz:
        saved = dict(npz)
    saved[name][7, 1] = number
    np.savez(file, allow_pickle=False, **saved)
    with pytest.raises(StoreError, match=rf"{name.rpartition('.')[2]} holds {number}.*; delete it to start anew"):
        load(file, Referee(users_max=900))
