"""What former versions wrote is read, and what is written they read: an upgrade and a rollback lose nothing.

`formats` has the records. A test that fails here says that a worker of another version, or a file of one, would be
misread or refused.
"""

import base64
import dataclasses
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import numpy as np
import pytest
from msgspec import Struct

from scoring import manifest
from scoring.clicks import FEATURES
from scoring.feedback import Learning
from scoring.ids import id64
from scoring.ledger import FIGURES
from scoring.pool import Pool
from scoring.rows import ROW, decode_rows, row_bytes
from scoring.sentiment import Watched
from streams import control_wire, wire
from streams.clock import wall_ms
from streams.control import Control
from streams.dead_letters import letter_of
from streams.experiments import findings, report
from streams.feeds import layers
from streams.lanes import clicks, layer_rows, learner_rows, snapshots
from streams.lanes.clicks import LaneClicks, person_key
from streams.lanes.ledger import LaneLedger
from streams.lanes.snapshots import Snapshots
from streams.letters import letter
from streams.message import Message
from streams.models.store import chunk_key
from streams.privacy.consent import Watermarks, digest_of
from streams.privacy.guests import Guests
from streams.reviews import state
from streams.settings import Settings
from tests.builders import Record
from tests.contract import formats
from tests.contract.formats import MS, Format, numbers, packed

ALL = (*formats.INPUTS, *formats.OUTPUTS, *formats.CONTROL, *formats.REPORTS, *formats.STATE)
MODULES = (wire, control_wire, findings, report, layers, layer_rows, learner_rows, snapshots, state, manifest)
NONE_OF_THEIR_OWN = {
    "ControlMessage", "Revised", "Asked",  # what kinds have in common
    "HeardConsent", "HeardErasure",  # as read; nobody writes them
    "Kept",  # the one field that a layer of any layout has
    "Heard",  # an array, which stands in the state of the reader of reviews, below
}  # fmt: skip
HELP = (
    "\n\nWorkers of the version before read what this one writes, and this one reads what they wrote: else an upgrade "
    "loses state, and a rollback ends. Give a field that is new a default, and keep names, types and defaults of those "
    "that are there. Where a layout must change, raise its version (LAYOUT_VERSION, CHUNK_LAYOUT, _MAGIC, FORMAT or "
    "VERSION), read the former one, too, and say in CHANGELOG.md what a rollback costs. Then add to "
    "tests/contract/formats.py what this version writes, beside what stands there."
)
EVERY = pytest.mark.parametrize("one", ALL, ids=[one.kind.__name__ for one in ALL])


def lost(then: Any, now: Any, where: str = "") -> Iterator[str]:
    """What of ``then`` is missing, or is another value or type, in ``now``, which may have more fields."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in then:
            yield from lost(then[name], now[name], f"{where}.{name}") if name in now else [f"{where}.{name} is gone"]
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for at, (one, other) in enumerate(zip(then, now, strict=True)):
            yield from lost(one, other, f"{where}[{at}]")
    elif type(then) is not type(now) or then != now:
        yield f"{where} is {now!r}, was {then!r}"


def require(then: Any, now: Any) -> None:
    """Fail with all that is lost."""
    found = [*lost(then, now)]
    assert not found, "\n".join(found) + HELP


def meaning(read: Any) -> Any:
    """What was read: all fields by their names on the wire, those at their defaults too."""
    if isinstance(read, Struct):
        config = read.__struct_config__
        values = [meaning(getattr(read, name)) for name in read.__struct_fields__]
        if config.array_like:
            return values
        told = dict(zip(read.__struct_encode_fields__, values, strict=True))
        return told | ({config.tag_field: config.tag} if config.tag_field else {})
    if dataclasses.is_dataclass(read) and not isinstance(read, type):
        return {each.name: getattr(read, each.name) for each in dataclasses.fields(read)}
    if isinstance(read, Mapping):
        return {name: meaning(value) for name, value in read.items()}
    return [meaning(each) for each in read] if isinstance(read, list | tuple) else read


def read(one: Format, told: Mapping[str, Any]) -> Any:
    """``told`` as it stands on its topic, decoded."""
    codec: Any = msgspec.msgpack if one.packed else msgspec.json
    try:
        return codec.decode(codec.encode(told), type=one.kind)
    except msgspec.ValidationError as error:
        raise AssertionError(f"{error}{HELP}") from error


def in_text(told: Any) -> Any:
    """As JSON has it, which knows no bytes."""
    if isinstance(told, Mapping):
        return {name: in_text(value) for name, value in told.items()}
    if isinstance(told, list):
        return [in_text(each) for each in told]
    return base64.b64encode(told).decode() if isinstance(told, bytes) else told


def test_every_kind_of_record_stands_here_with_all_its_fields() -> None:
    kinds = {
        each
        for module in MODULES
        for each in vars(module).values()
        if inspect.isclass(each) and issubclass(each, Struct) and each.__module__ == module.__name__
        and not each.__name__.startswith("_") and each.__name__ not in NONE_OF_THEIR_OWN
    }  # fmt: skip
    assert {each.__name__ for each in kinds} <= {one.kind.__name__ for one in ALL}, HELP
    for one in ALL:
        if issubclass(one.kind, Struct):
            new = {*one.kind.__struct_encode_fields__} - one.told.keys()
            assert not new, f"{one.kind.__name__}: add {new} to `told`, and to `unsaid` what records mean without{HELP}"


@EVERY
def test_what_a_former_version_wrote_is_read(one: Format) -> None:
    require(one.told, meaning(read(one, one.told)))


@EVERY
def test_what_a_record_leaves_out_means_what_it_always_did(one: Format) -> None:
    bare = {name: value for name, value in one.told.items() if name not in one.unsaid}
    require(bare | dict(one.unsaid), meaning(read(one, bare)))


@EVERY
def test_what_is_written_holds_all_that_former_versions_look_for(one: Format) -> None:
    message = read(one, one.told)
    if one.packed:
        now, then = msgspec.msgpack.decode(msgspec.msgpack.encode(message)), one.told
    else:
        now, then = msgspec.json.decode(wire.encode_json(message)), in_text(one.told)
    require(then, now)
    if one.key is not None:
        assert message.key == one.key, HELP


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [(one.kind, name, words) for one in ALL for name, words in one.words.items()],
    ids=[f"{one.kind.__name__}.{name}" for one in ALL for name in one.words],
)
def test_a_field_knows_the_words_that_it_always_did(kind: type[Any], name: str, words: str) -> None:
    """A new word must be read by a version before one writes it: decoders of former versions refuse the record."""
    assert set(get_args(get_type_hints(kind)[name])) == set(words.split()), HELP


def test_all_fields_of_few_words_are_held() -> None:
    few = {
        f"{one.kind.__name__}.{name}"
        for one in ALL
        for name, hint in get_type_hints(one.kind).items()
        if str(hint).startswith("typing.Literal")
    }
    assert few == {f"{one.kind.__name__}.{name}" for one in ALL for name in one.words}


# --- bytes ---------------------------------------------------------------------------------------------------


_KINDS = {1: (0x03, 0x9B), 2: (0x83, 0x9B), 3: (0x93, 0x93), 4: (0x93, 0x93), 5: (0x93, 0x93)}
"""An item of the ring as each layout has it, and as it is read: shown, viewed long, which the first two took for an
answer; in others the answer was a view."""
ROWS = {1: formats.ROW_1, 2: formats.ROW_3, 3: formats.ROW_3, 4: formats.ROW_4, 5: formats.ROW_5}


def row(version: int) -> dict[str, list[Any]]:
    """A person's row as this version of the layout had it."""
    return numbers(ROWS[version], {"version": version, "ring_kind": [_KINDS[version][0]] * 50})


@pytest.mark.parametrize("version", ROWS)
def test_a_persons_row_of_any_layout_is_read(version: int) -> None:
    then = row(version)
    try:
        (now,) = decode_rows([packed(ROWS[version], then)])
    except ValueError as error:
        raise AssertionError(f"{error}{HELP}") from error
    then |= {"version": [5], "ring_kind": [_KINDS[version][1]] * 50}
    if version == 1:
        then["unshown"] = [0]
    lacking = {name: [0] * np.size(now[name]) for name in ROW.names or () if name not in then}
    require(then | lacking, {name: np.ravel(now[name]).tolist() for name in ROW.names or ()})


def test_a_persons_row_is_written_as_the_version_before_reads_it() -> None:
    content = packed(formats.ROW_5, row(5))
    assert row_bytes(decode_rows([content])) == [content], HELP


PERSON = id64("u").to_bytes(8, "big")
SAID = {
    "shown_ms": MS, "due_ms": MS + 600_000, "predicted": 0.25, "expected": 0.5, "examined": 0.75, "open": 1,
    "control": 0, "shadow_predicted": 0.125, "closeness": 0.5,
}  # fmt: skip
OPEN = {4: (formats.OPEN_4, "dafb9a2dedd950b1"), 5: (formats.OPEN_5, "c0ddae68dc6d3c62")}
"""Layouts of open impressions, each with the layout of the click layer that kept them so."""


def layer(version: int) -> dict[bytes, bytes]:
    """A click layer on a changelog: an ad, a person and an open impression, of which the layout has this version."""
    layout, of = OPEN[version]
    told = dict(next(one.told for one in formats.STATE if one.kind is layer_rows.LayerRow))
    (learner,) = told["learners"].values()
    weights = {name: np.arange(1.0, 1 + len(FEATURES)).tobytes() for name in ("weights", "caution")}
    watch = learner["watch"] | {"good": [*weights.values()]}
    told |= {"layout": of, "learners": {17: learner | weights | {"watch": watch}}, "head": 7, "tail": 8}
    chunk = {"first": 7, "settled": 8, "answered": b"", "layout": version, "window_ms": 0}
    return {
        b"\0clicks": msgspec.msgpack.encode(told | {"dropped": 0, "asked": 7, "examined": packed("slots:4d", SLOTS)}),
        b"\0clicks/ad/\0\0\0\0\0\0\0\x09": packed("record:4d", {"record": [0.5, 1.5, 20.0, 3.0]}),
        b"\0clicks/person/" + PERSON: packed("record:3d", {"record": [0.5, 1.5, 2.5]}),
        b"\0clicks/open/\0\0\0\0\0\0\0\x02": msgspec.msgpack.encode(
            chunk | {"rows": packed(layout, numbers(layout, SAID))}
        ),
    }


SLOTS = {"slots": [1.0, 2.0, 3.0, 4.0]}
CELL = "days:2q figures:30q"
"""Of a ledger: the day, the one before it, and ten figures of each and of all days."""
_AT, _NO = MS.to_bytes(8, "big"), (MS + 9).to_bytes(8, "big")
DEADLINES = {b"\0erased/" + digest_of(b"u"): _AT, b"\0erased/" + digest_of(b"v"): _AT + _NO, b"\0guest/u": _AT}


@pytest.mark.parametrize("version", OPEN)
def test_a_click_layer_on_the_changelog_is_read(version: int) -> None:
    then = layer(version)
    got = LaneClicks.restore(Learning(), then)
    assert not got.anew, got.anew + HELP
    (learner,) = got.layer.learners.values()
    assert learner.model.array.tolist() == learner.model.caution.tolist() == [*range(1, 1 + len(FEATURES))], HELP
    assert got.layer.examination.record.ravel().tolist() == SLOTS["slots"], HELP
    assert got.layer.lifts.records([9]).tolist() == [[0.5, 1.5, 20.0, 3.0]], HELP
    assert got.layer.people.records([id64("u")]).tolist() == [[0.5, 1.5, 2.5]], HELP
    (now,) = got.layer.pending.between(7, 8)
    layout, _ = OPEN[version]
    require(numbers(layout, SAID), {name: [now[name].item()] for name in now.dtype.names or ()})
    if version == max(OPEN):
        parts = clicks.spread(got.parts())
        same = then.keys() - {b"\0clicks"} - {key for key in then if b"/open/" in key}
        assert {key: parts.get(key) for key in same} == {key: then[key] for key in same}, HELP
        (chunk,) = (msgspec.msgpack.decode(value) for key, value in parts.items() if b"/open/" in key)
        assert chunk["rows"] == packed(layout, numbers(layout, SAID)), HELP


def test_what_a_lane_keeps_beside_rows_is_read_and_written_alike() -> None:
    cell = packed(CELL, numbers(CELL, {}))
    ledger = {b"\0ledger/spring\x001-0": cell, b"\0touches": np.arange(73.0).tobytes()}
    assert LaneLedger.restore(ledger).parts() == ledger, HELP
    both = Watermarks.restore(DEADLINES).parts() | Guests.restore(DEADLINES).parts()
    assert both == DEADLINES, HELP


def test_a_ledgers_cell_from_before_purchases_were_counted_as_sold_is_read() -> None:
    former = {"days": [7, 5], "figures": [*range(100, 127)]}
    ledger = LaneLedger.restore({b"\0ledger/spring\x00": packed("days:2q figures:27q", former)})
    days, figures = ledger.ledger.of(0)
    assert (days, figures[:, :-1].ravel().tolist()) == ((7, 5), former["figures"]), HELP
    order = "impressions clicks viewed_ms charged unpriced last last_micros spread spread_micros sold"
    assert " ".join(FIGURES) == order, HELP


def test_what_lanes_tell_each_other_of_ads_is_heard() -> None:
    pool, told = Pool(), packed("ad:Q record:4d", {"ad": [9], "record": [0.5, 1.5, 20.0, 3.0]})
    assert layers.hear(pool, [Record("click-layers", 0, 0, 0, b"3-9", told)]) == 0, HELP
    assert pool.others(0).records([9]).tolist() == [[0.5, 1.5, 20.0, 3.0]], HELP


def test_a_snapshot_is_read(tmp_path: Path) -> None:
    then = packed(formats.ROW_5, row(5))
    header = msgspec.msgpack.encode(
        {"layout": 5, "changelog_id": "c-1", "changelog_offset": 4, "written_ms": wall_ms(), "parts": {b"\0k": b"v"}}
    )
    of_user = packed("users:I length:H", {"users": [1], "length": [1]}) + b"u" + then
    end = packed("users:I newest:Q", {"users": [0], "newest": [6]})
    kept = Snapshots(Settings(home=tmp_path), "c-1")
    kept.path(3).parent.mkdir(parents=True)
    kept.path(3).write_bytes(b"salience-4" + packed("size:I", {"size": [len(header)]}) + header + of_user + end)
    got = kept.load(3, 0, 100)
    assert (got.offset, got.parts, len(got.store)) == (4, {b"\0k": b"v"}, 1), HELP
    assert row_bytes(got.store.rows[[got.store.find(b"u")]]) == [then], HELP


def test_a_lanes_own_records_stand_under_the_keys_that_they_always_did() -> None:
    assert (wire.LANE_KEY, person_key(b"u")) == (b"\0lane", b"\0clicks/person/" + PERSON), HELP


def test_a_placement_is_written_byte_for_byte_as_its_receipt_holds_it() -> None:
    """`salience explain` compares these bytes: the order of fields is part of them."""
    then = (
        b'{"placement_id":"3-8c0","user_id":"u","time_ms":5,"valid_until_ms":9,"arm":"engine","model":"m-00000000",'
        b'"slots":[{"slot":1,"ad_id":"a","campaign_id":"c","pctr":0.034,"ecpm_micros":8500,"price_micros":234000,'
        b'"propensity":0.75,"attention":[{"ad_id":"b","weight":0.62}],"seal":"c01d","until_ms":8},'
        b'{"slot":2,"ad_id":"b","campaign_id":"c","pctr":0.5,"ecpm_micros":1,"price_micros":2,"propensity":1.0,'
        b'"attention":[],"seal":""}]}'
    )
    assert wire.encode_json(msgspec.json.decode(then, type=wire.Placement)) == then, HELP


def test_a_dead_letter_is_read_and_written_alike() -> None:
    record = Record("clicks", 3, 17, MS, b"u", b"{", [("salience.requeued", b"2"), ("trace", b"t")])
    then = (
        ("salience.requeued", b"2"), ("trace", b"t"), ("salience.topic", b"clicks"), ("salience.partition", b"3"),
        ("salience.offset", b"17"), ("salience.timestamp_ms", str(MS).encode()), ("salience.stage", b"decode"),
        ("salience.error", b"E"), ("salience.message", b"m"),
    )  # fmt: skip
    assert letter(record, "decode", "E", "m").headers == then, HELP
    got = letter_of(Record("dead-letters", 0, 0, 0, b"u", b"{", then))
    assert got is not None, HELP
    assert (got.told("topic"), got.number("offset"), got.requeued, got.headers) == ("clicks", 17, 2, then[1:2]), HELP
    assert letter_of(Record("dead-letters", 0, 1, 0, None, None, [("salience.note", b"0:0")])) is None, HELP


def test_a_tombstone_on_control_takes_back_what_it_goes_as_far_as() -> None:
    roles = {"kind": "model-roles", "live": "demo-1a2b3c4d", "revision": 2}
    control, key = Control(), b"model-roles/all"
    control.take([Record("control", 0, 0, MS, key, msgspec.json.encode(roles))])
    control.take([Record("control", 0, 1, MS, key, None, [("salience.upto", b"1")])])
    assert len(control) == 1, HELP
    control.take([Record("control", 0, 2, MS, key, None, [("salience.upto", b"2")])])
    assert len(control) == 0, HELP


def test_the_state_of_the_reader_of_reviews_is_read_and_written_alike() -> None:
    learnt = packed("count:I ids:2Q intercept:d reviews:Q", {
        "count": [2], "ids": [11, 12], "intercept": [0.5], "reviews": [6],
    }) + packed("bucket:I weight:d squares:d", {"bucket": [9], "weight": [0.25], "squares": [0.125]})  # fmt: skip
    lesson = {"next_offset": 5, "time_ms": MS, "parts": 1, "digest": hashlib.sha256(learnt).hexdigest()}
    at = {"version": 1, "reviews_id": "reviews-1", "next_offset": 7, "lesson": lesson, "turned": {"ad": 3}}
    heard = [[30, 0.75, 31.0, 0.5, -1.5, 2.5, True], MS - 9, MS, 6, [29, 0.5, None, MS]]
    held = {b"at": msgspec.msgpack.encode(at), b"lesson/5/0": learnt, b"ad/a": msgspec.msgpack.encode(heard)}
    got = state.known(held, "reviews-1", 8)
    assert (list(got.ids), got.unneeded) == ([11, 12], []), HELP
    assert msgspec.msgpack.encode(got.heard[b"ad/a"]) == held[b"ad/a"], HELP
    one = got.heard[b"ad/a"]
    assert (one.turned_ms, one.time_ms, one.next_offset, one.said) == (MS - 9, MS, 6, (29, 0.5, None, MS)), HELP
    assert one.watched == Watched(reviews=30, mean=0.75, seen=31.0, usual=0.5, sum=-1.5, highest=2.5, turned=True), HELP
    assert state.teach(got.sentiment, got.ids, 5, MS)[1] == [Message(b"lesson/5/0", learnt)], HELP


def test_a_model_has_the_name_and_the_parts_that_it_was_pushed_with() -> None:
    """Placements, roles and receipts name it so. Models of another specification are refused: train them again."""
    told = next(one.told for one in formats.STATE if one.kind is manifest.Manifest)
    assert msgspec.convert(told, manifest.Manifest).version == "demo-e102dcbd", HELP
    assert chunk_key("00ff", 3) == b"00ff/3", HELP
