"""The comparison of the outcomes that workers told with those of the pure core."""

import msgspec
import numpy as np

from scoring.feedback import OUTCOME
from scoring.ids import id64
from streams.asyncapi_examples import OUTCOME as TOLD
from streams.layer_audit import Layers, differences, prediction_difference
from tests.builders import START_MS, Record
from tests.unit.test_unreadable import BAD


def core() -> Layers:
    """Of two people whose producer counts events anew for each: the first was shown an ad, the second another."""
    outcomes = np.zeros(2, dtype=OUTCOME)
    outcomes["event"], outcomes["ad"] = id64("1"), [id64("a"), id64("b")]
    outcomes["shown_ms"], outcomes["clicked"], outcomes["predicted"] = START_MS, [1, 0], [0.25, 0.5]
    layers = Layers()
    layers.learned(outcomes)
    return layers


def told(second: float) -> Layers:
    """The same as the topic tells it, with another chance of the second."""
    layers = Layers()
    for ad, clicked, predicted in (("b", False, second), ("a", True, 0.25)):
        name = f"{id64('1'):016x}"
        one = {"event": name, "ad_id": ad, "shown_ms": START_MS, "clicked": clicked, "predicted": predicted}
        layers.hear(msgspec.structs.replace(TOLD, **one))
    return layers


def test_events_of_one_id_are_compared_each_with_its_own() -> None:
    assert core().repeated == told(0.5).repeated == 0
    assert differences(core(), told(0.5)) == []
    ((what, expected, got),) = differences(core(), told(0.75))
    assert (what, expected, got) == (f"impression {id64('1'):016x}", (False, 0.5), (False, 0.75))
    assert prediction_difference(core(), told(0.75)) == 0.25


def test_what_is_no_outcome_on_their_topic_is_a_difference_and_the_rest_is_compared() -> None:
    odd = msgspec.json.encode(msgspec.structs.replace(TOLD, event="no hash"))
    values = [None, msgspec.json.encode(TOLD), *BAD.values(), b"{}", odd]
    seen, one = Layers(), Layers()
    one.hear(TOLD)
    seen.read([Record("outcomes", 0, at, START_MS, None, value) for at, value in enumerate(values)])
    assert (seen.told, seen.repeated) == (one.told, 0)
    assert differences(one, seen) == [("unreadable outcomes", 0, len(BAD) + 3)]
