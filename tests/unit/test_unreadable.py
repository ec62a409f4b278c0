"""A record of a stranger's hand that is no message, in every place that reads one: refused or counted, never raised."""

from collections.abc import Callable

import pytest

from scoring.budgets import Budgets
from scoring.catalogue import Catalogue
from scoring.events import Source
from scoring.market import Market
from scoring.pool import Pool
from streams.behaviour.gathered import Gatherer
from streams.cli.tail import as_object
from streams.client import Latest
from streams.console.campaigns import Campaigns
from streams.console.desk import Desk
from streams.control import Control
from streams.feeds import campaigns, layers, tones
from streams.feeds.catalogue import apply_ads, titles_in
from streams.reviews.reviewer import Reviewer
from streams.settings import Settings
from tests.builders import START_MS, Record
from tests.unit.slices import new_state, run, step_of

BAD = {
    "nested a thousand deep": b'{"x":' + 5_000 * b"[",
    "nested, and closed": b'{"user_id":"a","x":' + 5_000 * b"[" + 5_000 * b"]" + b"}",
    "no UTF-8": b'{"title":"\xff","user_id":"\xff"}',
    "cut off": b'{"user_id":"a',
    "nothing": b"",
}


def _bad(topic: str, key: bytes, value: bytes) -> Record:
    return Record(topic, 0, 0, START_MS, key, value)


def _step(value: bytes) -> object:
    return [
        letter.value for letter in run(step_of(), new_state(), [_bad("clicks", b"a", value)]).messages["dead-letters"]
    ]


def _desk(topic: str, key: bytes) -> Callable[[bytes], object]:
    def take(value: bytes) -> object:
        desk = Desk(Settings(), 1)
        (tail,) = [tail for tail in desk.tails() if tail.topic == topic]
        tail.take([_bad(topic, key, value)])
        return desk.malformed

    return take


def _campaigns(value: bytes) -> object:
    campaigns = Campaigns()
    campaigns.take([_bad("campaign-metrics", b"a", value)])
    return campaigns.malformed


def _gathered(value: bytes) -> object:
    gatherer = Gatherer()
    gatherer.take_ads([_bad("ads", b"a", value)])
    gatherer.take(Source.CLICK, [_bad("clicks", b"a", value)])
    gatherer.decided([value])
    return gatherer.invalid == 3


def _client(value: bytes) -> object:
    view = Latest()
    view.take(b"a", value)
    return view.counts.malformed


READERS: dict[str, Callable[[bytes], object]] = {
    "events": _step,
    "ads": lambda value: apply_ads(Catalogue(), [_bad("ads", b"a", value)]),
    "titles": lambda value: titles_in([_bad("ads", b"a", value)]) in ([], [""]),
    "control": lambda value: Control().take([_bad("control", b"consent/a", value)]),
    "tones": lambda value: tones.take(Catalogue(), [_bad("tones", b"ad/a", value)]),
    "campaigns": lambda value: campaigns.tell(Budgets(Market(), Catalogue()), [_bad("campaign-metrics", b"a", value)]),
    "reviews": lambda value: [*Reviewer().take([_bad("reviews", b"a", value)])],
    "layers": lambda value: layers.hear(Pool(), [_bad("click-layers", b"0", value)]),
    "client": _client,
    "report": _gathered,
    "console: campaign-metrics": _campaigns,
    "tail": lambda value: as_object(_bad("ads", b"a", value))["value"],
}
"""What is given a record's value, and gives something true where it has refused it."""
READERS |= {
    f"console: {topic}": _desk(topic, key)
    for topic, key in {
        "control": b"drift/0",
        "experiment-reports": b"a",
        "tones": b"ad/a",
        "placements": b"a",
        "outcomes": b"",
    }.items()
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_message_is_refused_and_ends_nobody(reader: str, bad: str) -> None:
    assert READERS[reader](BAD[bad])
