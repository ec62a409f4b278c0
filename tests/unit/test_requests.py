"""What people ask for on the control topic, as each lane hears it."""

from dataclasses import replace

from streams.control import Control
from streams.privacy.requests import Requests
from tests.unit.consenting import erasure, grant, refusal, told


def asked(requests: Requests, lane: int, offset: int) -> list[bytes]:
    """What the lane has been asked for, and by whom."""
    return [request.key for request in requests.since(lane, offset)]


def test_a_lane_hears_of_its_own_users_alone() -> None:
    control = Control()
    requests = Requests(control, lambda user: user[0] % 2)
    control.take([told(erasure(user), offset) for offset, user in enumerate("abc")])
    assert asked(requests, 0, 0) == [erasure("b").key]
    assert asked(requests, 1, 0) == [erasure("a").key, erasure("c").key]
    assert asked(requests, 1, 1) == [erasure("c").key]
    assert requests.waits(0, 1)
    assert not requests.waits(0, 2)


def test_an_answer_that_is_taken_back_asks_for_nothing_more() -> None:
    control = Control()
    requests = Requests(control, lambda _user: 0)
    told_twice = [refusal("a"), grant("a"), erasure("a")]
    control.take([told(message, offset) for offset, message in enumerate(told_twice)])
    control.take([replace(told(grant("a"), 3), value=None)])
    assert asked(requests, 0, 0) == [erasure("a").key]
