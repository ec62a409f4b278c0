"""What a person sees of the behaviour report, and reaches by keyboard: in both schemes, wide, narrow and on paper."""

import asyncio
import contextlib
import io
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Page

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'salience[report]'")

from PIL import Image

from streams.behaviour.page import page as written
from tests.contrast import contrast
from tests.integration.consoles import (
    DESK,
    SMALL,
    assert_accessible,
    assert_reached_by_keyboard,
    chromium,
    screenshot,
)
from tests.unit.test_behaviour_page import whole
from tests.unit.test_colours import colours

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

BROKEN = """nodes => nodes.filter(node => {
  const range = document.createRange();
  range.selectNodeContents(node);
  return new Set([...range.getClientRects()].map(({ top }) => top)).size > 1;
}).map(node => node.textContent)"""
"""Cells whose text takes more than one line."""


@contextlib.asynccontextmanager
async def opened(folder: Path, **context: Any) -> AsyncIterator[Page]:
    """The report's page as a file, all its tables unfolded; whatever it complains of fails the test."""
    complaints: list[str] = []
    path = folder / "report.html"
    path.write_text(written(whole()), encoding="utf-8")
    async with chromium() as browser, await browser.new_context(**context) as made:
        page = await made.new_page()
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(path.as_uri())
        await page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        yield page
        assert complaints == []


async def pictures(page: Page) -> list[Counter[str]]:
    """How many pixels of each picture have which colour, as style sheets write it."""
    found = []
    for each in await page.locator("img").all():
        pixels = np.asarray(Image.open(io.BytesIO(await each.screenshot())).convert("RGB")).reshape(-1, 3)
        seen, counts = np.unique(pixels, axis=0, return_counts=True)
        found.append(Counter({f"#{bytes(one).hex()}": int(count) for one, count in zip(seen, counts, strict=True)}))
    return found


async def assert_pictures_are(page: Page, scheme: str) -> None:
    """On the scheme's ground, with words and lines that can be read on it."""
    ground = colours(scheme)["ground"]
    for seen in await pictures(page):
        assert seen.most_common(1)[0][0] == ground
        assert sum(count for colour, count in seen.items() if contrast(colour, ground) >= 4.5) > 500


@pytest.mark.parametrize("viewport", [DESK, SMALL], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_of_it_can_be_read_and_reached(scheme: str, viewport: dict[str, int], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path, color_scheme=scheme, viewport=viewport) as page:
            await assert_accessible(page)
            await assert_reached_by_keyboard(page)
            assert await page.locator("td, thead th").evaluate_all(BROKEN) == []
            await assert_pictures_are(page, scheme)
            widths = await page.locator("img").evaluate_all("nodes => nodes.map(node => node.clientWidth)")
            assert min(widths) >= 700, "letters in pictures are as large as they were drawn"
            await screenshot(page, f"report-{scheme}-{viewport['width']}")

    asyncio.run(scenario())


def test_on_paper_it_is_light_and_nothing_is_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        paper = {"width": 680, "height": 960}
        async with opened(tmp_path, color_scheme="dark", viewport=paper) as page:
            await page.emulate_media(media="print", color_scheme="dark")
            ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert contrast(ground, colours("light")["ground"]) == 1
            await assert_pictures_are(page, "light")
            sides = "nodes => nodes.map(node => node.getBoundingClientRect().right)"
            right = await page.locator("img, table").evaluate_all(sides)
            assert max(right) <= paper["width"]

    asyncio.run(scenario())
