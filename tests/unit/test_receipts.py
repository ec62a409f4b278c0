"""Receipts of a share of all placements: which ones, and that nothing else goes by it."""

import msgspec
import pytest
from typer.testing import CliRunner

from scoring.ids import id64s
from streams.cli import app
from streams.placement_ids import Origin, slice_end_of
from streams.receipt_search import receipt_among
from streams.receipts import kept
from streams.step import Effects
from streams.wire import Decision
from tests.builders import Record
from tests.unit.slices import log_records, new_state, placements, run, step_of

NAMES = [f"0-{n:x}-{n * n:x}-ab" for n in range(20_000)]
IDS = id64s(NAMES)


def receipts(effects: Effects) -> list[str]:
    return [
        msgspec.json.decode(each.value or b"", type=Decision).placement_id for each in effects.messages["decisions"]
    ]


def played(share: float) -> list[Effects]:
    step, state, log = step_of(receipts_share=share), new_state(), log_records()
    return [run(step, state, log[at : at + 30]) for at in range(0, len(log), 30)]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_placements_leaves_receipts_and_all_else_is_as_it_was(share: float) -> None:
    some, every = played(share), played(1.0)
    for few, whole in zip(some, every, strict=True):
        assert few.messages | {"decisions": []} == whole.messages | {"decisions": []}
        names = receipts(whole)
        assert names == [placement.placement_id for placement in placements(whole).values()]
        assert receipts(few) == [name for name, drawn in zip(names, kept(id64s(names), share), strict=True) if drawn]
    counts = [sum(len(each.messages["decisions"]) for each in one) for one in (some, every)]
    assert counts[0] == pytest.approx(share * counts[1], abs=25)
    assert counts[1] > 80


def test_a_receipt_tells_how_far_its_slice_had_read_which_no_slice_before_had() -> None:
    for effects in played(1.0):
        before, ends = effects.lane_row.from_offsets, effects.lane_row.next_offsets
        for message, name in zip(effects.messages["decisions"], receipts(effects), strict=True):
            origin = Origin.of(name)
            assert origin is not None
            assert slice_end_of(message.headers) == ends
            assert all(at <= end for at, end in zip(origin.next_offsets, ends, strict=True))
            assert any(at > end for at, end in zip(origin.next_offsets, before, strict=True))


def test_who_leaves_a_receipt_goes_by_the_placements_name_alone() -> None:
    few, more = kept(IDS, 0.05), kept(IDS, 0.5)
    assert few.mean() == pytest.approx(0.05, abs=0.01)
    assert more.mean() == pytest.approx(0.5, abs=0.02)
    assert more[few].all()
    assert kept(IDS[::-1], 0.5)[::-1].tolist() == more.tolist()
    assert kept(IDS, 1.0).all()
    assert not kept(IDS, 0.0).any()
    assert kept(IDS[:0], 0.5).shape == (0,)


def test_a_person_whose_placement_leaves_no_receipt_is_no_guest() -> None:
    step, state = step_of(receipts_share=0.0), new_state()
    effects = run(step, state, log_records(60))
    assert effects.messages["placements"]
    assert not state.guests.until_ms


@pytest.mark.parametrize(
    ("share", "said"), [("0.0", "SALIENCE_RECEIPTS_SHARE is 0.0"), ("1", "salience tail placements")]
)
def test_who_asks_for_a_receipt_that_was_never_left_is_told_so(
    monkeypatch: pytest.MonkeyPatch, share: str, said: str
) -> None:
    async def nowhere(*_: str, **__: object) -> None: ...

    monkeypatch.setattr("streams.receipt_search.find_receipt", nowhere)
    told = CliRunner().invoke(app, ["explain", f"0-1-1-{0xAB:016x}"], env={"SALIENCE_RECEIPTS_SHARE": share})
    assert told.exit_code == 1
    assert said in told.stderr


def test_who_asks_for_what_is_no_id_of_a_placement_is_told_so_without_a_broker() -> None:
    told = CliRunner().invoke(app, ["explain", "0-1a22", "--bootstrap", "127.0.0.1:1"])
    assert told.exit_code == 1
    assert "'0-1a22' is not the id of a placement" in told.stderr


@pytest.mark.parametrize("bad", [b'{"placement_id":"p"', b'{"placement_id":"p"}', b'{"placement_id":"p","x":"\xff"}'])
def test_a_record_that_is_no_receipt_hides_none_whose_id_it_holds(bad: bytes) -> None:
    (wanted, *_) = [each for effects in played(1.0) for each in effects.messages["decisions"]]
    name = msgspec.json.decode(wanted.value or b"", type=Decision).placement_id
    broken = bad.replace(b'"p"', b'"%s"' % name.encode())

    records = [Record("decisions", 0, at, 0, b"u", value) for at, value in enumerate((broken, wanted.value, broken))]
    found = receipt_among(records, name)
    assert found is not None
    assert found.placement_id == name
