"""What workers make of the control topic: of each key the newest message, and nothing that is malformed."""

from collections.abc import Sequence

import msgspec
import pytest

from streams.control import UPTO, Control, ControlFullError
from streams.control_wire import Allocation, CohortSetting, Consent, ControlMessage, Erasure, ModelRoles, PushedModel
from streams.wire import encode_json
from tests.builders import START_MS, Record


def consent(user: str = "user-1", *, granted: bool = True) -> Consent:
    return Consent(user_id=user, granted=granted, time_ms=START_MS)


def told(message: ControlMessage, offset: int = 0, key: bytes | None = None) -> Record:
    """Its record, which does not tell when it came."""
    return Record("control", 0, offset, -1, key or message.key, encode_json(message))


def test_of_one_key_the_newest_message_holds_and_a_tombstone_takes_it_back() -> None:
    control = Control()
    assert control.take([told(consent()), told(consent("user-2")), told(consent(granted=False), 2)]) == 0
    assert control.get(Consent, "user-1") == consent(granted=False)
    control.take([Record("control", 0, 3, START_MS, b"consent/user-1", None)])
    assert control.get(Consent, "user-1") is None
    assert list(control.all(Consent)) == ["user-2"]
    assert control.next_offset == 4


def erasure(time_ms: int, *, repeated: bool = False) -> Erasure:
    return Erasure(user_id="user-1", time_ms=time_ms, repeated=repeated)


def tombstone(upto: bytes | None) -> Record:
    return Record("control", 0, 1, START_MS, erasure(0).key, None, [(UPTO, upto)])


def test_a_tombstone_takes_back_what_it_goes_as_far_as() -> None:
    for upto, stands in ((b"4", True), (b"5", False), (b"6", False), (None, False)):
        control = Control()
        assert control.take([told(erasure(5)), tombstone(upto)]) == 0
        assert control.get(Erasure, "user-1") == (erasure(5) if stands else None)
        assert control.hidden(Erasure) == ([erasure(5)] if stands else [])
    assert control.take([tombstone(b"all")]) == 1


def test_a_tombstone_whose_key_is_no_text_takes_nothing_back_from_whom_it_would_be_read_as() -> None:
    control = Control()
    heard: list[str] = []
    control.on(Consent, lambda name, _: heard.append(name))
    control.take([told(consent("\ufffd"))])
    assert control.take([Record("control", 0, 1, START_MS, b"consent/\xff", None)]) == 1
    assert control.get(Consent, "\ufffd") == consent("\ufffd")
    assert heard == ["\ufffd"]


def test_a_request_that_is_repeated_takes_the_place_of_none_that_is_later() -> None:
    control = Control()
    control.take([told(erasure(6)), told(erasure(5, repeated=True))])
    assert control.hidden(Erasure) == [control.get(Erasure, "user-1")] == [erasure(6)]
    control.take([told(erasure(5))])  # by the person, whose device's clock is late
    assert (control.get(Erasure, "user-1"), control.hidden(Erasure)) == (erasure(5), [])


def test_cohorts_are_only_added_to_those_that_stand() -> None:
    def allocation(*shares: float, number: int = 1) -> Allocation:
        cohorts = [CohortSetting(upto=(at + 1) / 10, shares=(one, 1 - one)) for at, one in enumerate(shares)]
        return Allocation(experiment="warmth", number=number, cohorts=tuple(cohorts), time_ms=1)

    control = Control()
    for made, stands in (
        (allocation(0.5), True),
        (allocation(0.4), False),
        (allocation(0.4, 0.3), False),
        (allocation(0.5, 0.3), True),
        (allocation(0.5), False),
        (allocation(0.4, number=2), True),
    ):
        before = control.get(Allocation, "warmth")
        control.take([told(made)])
        assert control.get(Allocation, "warmth") == (made if stands else before)
        assert control.hidden(Allocation) == ([] if stands else [before])


def compacted(records: Sequence[Record], upto: int) -> list[Record]:
    """What a log keeps whose segments before the offset ``upto`` have been compacted."""
    newest = {record.key: record for record in records[:upto]}
    return [*newest.values(), *records[upto:]]


@pytest.mark.parametrize("revision", [0, 3])
def test_wherever_a_segment_ends_that_was_compacted_the_same_cohorts_stand(revision: int) -> None:
    def allocation(share: float, revision: int) -> Allocation:
        cohorts = (CohortSetting(upto=0.1, shares=(share, 1 - share)),)
        return Allocation(experiment="warmth", number=1, cohorts=cohorts, time_ms=1, revision=revision)

    first, other = allocation(0.5, revision), allocation(0.4, revision)
    again = msgspec.structs.replace(first, revision=revision + 1)
    records = [told(message, offset) for offset, message in enumerate((first, other, again))]

    for upto in range(len(records) + 1):
        control = Control()
        control.take(compacted(records, upto))
        assert (control.get(Allocation, "warmth"), control.hidden(Allocation)) == (again, [])


def test_an_experiment_of_the_same_name_that_has_ended_lets_nobody_in_any_more() -> None:
    """Its referee was paused, and had read its own cohorts alone."""
    control = Control()
    cohorts = (CohortSetting(upto=0.1, shares=(0.5, 0.5)),)
    ours = Allocation(experiment="warmth", number=2, cohorts=cohorts, time_ms=1, revision=2)
    control.take([told(ours), told(msgspec.structs.replace(ours, number=1), 1)])
    assert control.get(Allocation, "warmth") == ours


def test_a_name_may_hold_the_separator() -> None:
    control = Control()
    control.take([told(consent("a/b"))])
    assert control.get(Consent, "a/b") is not None


def test_an_unknown_kind_is_passed_over_and_what_is_malformed_is_refused() -> None:
    control = Control()
    records = [
        told(consent()),
        Record("control", 0, 1, START_MS, b"kind-to-come/x", b'{"kind":"kind-to-come"}'),
        Record("control", 0, 2, START_MS, b"consent/user-1", b"{no message"),
        Record("control", 0, 3, START_MS, b"consent/user-1", b'{"kind":"kind-to-come"}'),
        told(consent("user-2"), 4, key=b"consent/user-3"),
        Record("control", 0, 5, START_MS, None, b""),
        Record("control", 0, 6, START_MS, b"\xff/\xff", b""),
    ]
    assert control.take(records) == 3
    assert dict(control.all(Consent)) == {"user-1": consent()}
    assert control.next_offset == 7


@pytest.mark.parametrize("user", ["\x00lane", "\x00ledger/c\x00", "a\nb", "a\x7f"])
def test_nobody_is_asked_for_whose_id_no_event_could_have(user: str) -> None:
    control = Control()
    messages = [consent(user), Erasure(user_id=user, time_ms=START_MS)]
    assert control.take([told(message, offset) for offset, message in enumerate(messages)]) == 2
    assert not len(control)


@pytest.mark.parametrize(
    "message",
    [
        Allocation(experiment="colours\n", number=1, cohorts=(), time_ms=START_MS),
        PushedModel(model="net-01234567\n", manifest="", bytes=1, parity=0, score_ms=0, time_ms=START_MS),
        ModelRoles(live="net-01234567\n"),
        ModelRoles(former=("\n",)),
    ],
)
def test_no_name_ends_in_a_line_end(message: ControlMessage) -> None:
    assert Control().take([told(message)]) == 1


def test_a_user_may_be_named_in_any_script() -> None:
    control = Control()
    control.take([told(consent("用户\u00a0\u200b"))])
    assert len(control) == 1


def test_a_listener_hears_what_is_held_and_then_each_change_in_order() -> None:
    control = Control()
    control.take([told(consent())])
    heard: list[tuple[str, Consent | None]] = []
    control.on(Consent, lambda name, message: heard.append((name, message)))
    control.take([told(consent(granted=False)), Record("control", 0, 3, START_MS, b"consent/user-1", None)])
    assert heard == [("user-1", consent()), ("user-1", consent(granted=False)), ("user-1", None)]


def test_keys_beyond_the_bound_end_the_worker_and_one_that_is_held_may_change() -> None:
    control = Control(entries_max=1)
    control.take([told(consent())])
    control.take([told(consent(granted=False))])
    with pytest.raises(ControlFullError, match="SALIENCE_CONTROL_ENTRIES_MAX"):
        control.take([told(consent("user-2"))])
