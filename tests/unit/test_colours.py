"""The colours of both pages: whole in both schemes, and apart enough to be read."""

import re
from pathlib import Path

import pytest

from streams.behaviour.colours import DRAWN as DRAWN_IN
from tests.contrast import contrast

STREAMS = Path(__file__).parents[2] / "streams"
STATIC = STREAMS / "console" / "static"
GROUNDS = ("ground", "panel")
READ = [(text, ground) for text in ("text", "quiet", "link", "ok", "amber", "red") for ground in GROUNDS]
READ += [(level, f"{level}-ground") for level in ("ok", "amber", "red")]
READ += [("text", "red-ground"), ("quiet", "red-ground"), ("ground", "ink")]
DRAWN = [(line, ground) for line in ("ink", "second", "text", "quiet") for ground in GROUNDS]


def colours(scheme: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#\w+);", (STATIC / f"{scheme}.css").read_text()))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_lines_stand_out_from_whatever_they_stand_on(scheme: str) -> None:
    of = colours(scheme)
    assert [pair for pair in READ if contrast(of[pair[0]], of[pair[1]]) < 4.5] == []
    assert [pair for pair in DRAWN if contrast(of[pair[0]], of[pair[1]]) < 3] == []


def test_no_two_colours_that_pictures_are_drawn_in_are_alike_on_light_ground() -> None:
    assert len({*DRAWN_IN.values()}) == len(DRAWN_IN) == 4  # each is given its name by what it is there


def test_both_schemes_have_every_colour_that_a_page_asks_for() -> None:
    pages = [*STATIC.glob("*.css"), *STATIC.glob("*.js"), STREAMS / "behaviour" / "page.html.j2"]
    asked = {name for path in pages for name in re.findall(r"(?:var\(|colour\(\")--([\w-]+)", path.read_text())}
    assert asked <= colours("light").keys() == colours("dark").keys()
