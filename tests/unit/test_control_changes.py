"""Changes of one key by several at once: how often who has written looks, and what is taken back."""

from collections.abc import Sequence

import msgspec
import pytest

from streams.control import Control, ControlFullError
from streams.control_changes import TRIES_MAX, after, take_back
from streams.control_wire import Consent, ControlMessage, Erasure, ModelRoles
from streams.models.roles import roles_told, with_canary, with_shadow
from tests.builders import START_MS, Record
from tests.unit.test_control import consent, told
from tests.unit.test_experiment_numbers import Topic

NEW, OTHER = "new-00000001", "other-00000002"


class Contested(Topic):
    """One where another change, made from the former roles, comes after each that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = self.reads = 0

    def write(self, messages: Sequence[ControlMessage], gone: Sequence[ControlMessage] = ()) -> None:
        super().write(messages, gone)
        self.writes += 1
        for message in messages:
            assert isinstance(message, ModelRoles)
            super().write([with_canary(msgspec.structs.replace(message, revision=message.revision - 1), OTHER, 0.5, 9)])

    def read(self) -> Control:
        self.reads += 1
        return super().read()


def test_a_change_yields_to_others_so_often_and_no_more() -> None:
    topic, made = Contested(), with_shadow(ModelRoles(), NEW, 0.1, 1)
    topic.write([made])
    control = after(made, topic.read, topic.write)
    assert (topic.reads, topic.writes) == (TRIES_MAX, 1 + TRIES_MAX)
    assert made.repeats(roles_told(control))
    assert made.repeats(roles_told(topic.read()))


def test_who_is_alone_looks_once_and_writes_nothing_more() -> None:
    topic, made = Contested(), with_shadow(ModelRoles(), NEW, 0.1, 1)
    Topic.write(topic, [made])
    assert roles_told(after(made, topic.read, topic.write)) == made
    assert (topic.reads, topic.writes) == (1, 0)


def test_what_is_taken_back_goes_and_what_others_have_made_of_it_meanwhile_stays_the_newest() -> None:
    made = with_shadow(ModelRoles(), NEW, 0.1, 1)
    topic = Topic()
    topic.write([made])
    assert roles_told(take_back(made, topic.read, topic.write)) == ModelRoles()
    topic.write([made, with_shadow(made, NEW, 0.2, 2)])
    control = take_back(made, topic.read, topic.write)
    assert roles_told(control).shadow_share == 0.2
    assert not topic.read().hidden(ModelRoles)
    last = Topic()
    last.records = topic.records[-1:]
    assert roles_told(last.read()).shadow_share == 0.2


def test_what_is_refused_is_counted_and_the_next_offset_is_that_after_the_last_record() -> None:
    control = Control()
    bad = [Record("control", 0, offset, START_MS, b"consent/user-1", b"{no message") for offset in (7, 9)]
    assert control.take([*bad, Record("control", 0, 30, START_MS, None, b"")]) == 2
    assert control.next_offset == 31


def test_a_message_that_repeats_what_stands_keeps_its_place_and_one_that_changes_it_goes_to_the_end() -> None:
    control = Control()
    control.take([told(consent("a")), told(consent("b")), told(consent("a"))])
    assert list(control.all(Consent)) == ["a", "b"]
    control.take([told(consent("a", granted=False))])
    assert list(control.all(Consent)) == ["b", "a"]


def test_keys_of_all_kinds_count_and_as_many_as_may_be_are_held() -> None:
    control = Control(entries_max=2)
    control.take([told(consent("a")), told(Erasure(user_id="a", time_ms=START_MS))])
    assert len(control) == 2
    control.take([told(consent("a", granted=False)), told(consent("a", granted=False))])
    control.take([Record("control", 0, 3, START_MS, b"consent/a", None), told(consent("b"))])
    with pytest.raises(ControlFullError, match="more than 2 keys"):
        control.take([told(consent("c"))])


def test_what_is_hidden_is_told_by_kind_and_name_and_no_longer_once_it_is_the_newest() -> None:
    def erasure(user: str, time_ms: int, *, repeated: bool = False) -> Erasure:
        return Erasure(user_id=user, time_ms=time_ms, repeated=repeated)

    control, heard = Control(), list[ControlMessage | None]()
    control.on(Erasure, lambda _, message: heard.append(message))
    control.take([told(consent("a")), told(erasure("a", 6)), told(erasure("a", 5, repeated=True))])
    assert control.hidden(Consent) == []
    assert control.hidden(Erasure) == [erasure("a", 6)]
    control.take([told(erasure("a", 6))])
    assert control.hidden(Erasure) == []
    assert heard == [erasure("a", 6), erasure("a", 6)]
