"""``salience console`` as a process, and its page in the system's Chromium, driven by Playwright."""

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright

from tests.contrast import contrast
from tests.integration.lanes import Shop
from tests.integration.workers import DEADLINE_S, until
from tests.needs import lacking

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCREENSHOTS = Path(__file__).parents[2] / "build" / "console"
"""Not in the repository: each run makes them anew."""
DESK, TABLET = {"width": 1280, "height": 1000}, {"width": 800, "height": 1280}
PHONE, SMALL = {"width": 390, "height": 844}, {"width": 375, "height": 667}


class Console:
    """``salience console`` on a shop's topics; stopped in order when the block ends, killed if it does not."""

    def __init__(self, shop: Shop, log: Path) -> None:
        settings = shop.settings
        self.log = log
        self._command = [sys.executable, "-m", "streams.cli", "console", "--port", "0", "--every", "0.5"]
        self._command += ["--bootstrap", settings.bootstrap, "--prefix", settings.topic_prefix]
        self._command += ["--group", settings.group]

    def __enter__(self) -> Self:
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(self._command, stdout=output, stderr=output)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        self.process.kill()
        self.process.wait()

    async def url(self) -> str:
        """Where it serves, once it does."""

        async def serves() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return "console=http" in self.log.read_text()

        await until(serves, "the console serves")
        found = re.search(r"console=(http://[\d.:]+/)", self.log.read_text())
        assert found, self.log.read_text()
        return found[1]


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser, headless; without one the test is skipped, or fails (`tests.needs`)."""
    if CHROMIUM is None:
        lacking("chromium", "wants Chromium: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def page_on(
    browser: Browser, url: str, language: str = "en", first: str = "", **context: Any
) -> AsyncIterator[Page]:
    """The console's page, with a snapshot on it; whatever the page complains of fails the test.

    ``first``: a script that runs before any of the page's.
    """
    complaints: list[str] = []

    def asked(address: str) -> None:
        if not address.startswith(url):
            complaints.append(f"the page asks {address}")

    async with await browser.new_context(**{"viewport": DESK, "reduced_motion": "reduce", **context}) as opened:
        opened.set_default_timeout(1_000 * DEADLINE_S)
        page = await opened.new_page()
        await page.add_init_script(first)
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("request", lambda request: asked(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(f"{url}?lang={language}")
        await page.wait_for_selector("#lanes tbody tr")
        yield page
        assert complaints == [], complaints


async def level_is(page: Page, level: str) -> float:
    """Wait until the page shows this level; the seconds it took."""
    began = asyncio.get_running_loop().time()
    await page.wait_for_selector(f"html[data-level={level}]")
    return asyncio.get_running_loop().time() - began


async def not_red(page: Page) -> None:
    """Wait until all keeps up; whether something wants a look besides depends on how long ago it was."""
    await page.wait_for_selector("html:is([data-level=ok], [data-level=amber])")


async def values(page: Page, table: str, *fields: str) -> list[tuple[str, ...]]:
    """The raw values behind the cells of a table, row by row."""
    found: list[list[str]] = await page.eval_on_selector_all(
        f"#{table} tbody tr",
        "(rows, fields) => rows.map(row => fields.map(f => row.querySelector(`[data-field='${f}']`).dataset.value))",
        list(fields),
    )
    return [tuple(row) for row in found]


async def assert_accessible(page: Page) -> None:
    """axe-core finds nothing wrong (names, roles, contrast, order, language), and the page does not scroll sideways."""
    found = await Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, "the page scrolls sideways"


FOCUSED = """() => {
  const node = document.activeElement;
  if (node === document.body) return null;
  const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(node);
  let around = node.parentElement;
  while (getComputedStyle(around).backgroundColor === "rgba(0, 0, 0, 0)") around = around.parentElement;
  const { left, right, top, bottom } = node.getBoundingClientRect();
  node.dataset.reached = "";
  return {
    what: node.outerHTML.slice(0, 90), ring: outlineStyle === "none" ? 0 : parseFloat(outlineWidth),
    colour: outlineColor, ground: getComputedStyle(around).backgroundColor,
    seen: right > 0 && left < innerWidth && bottom > 0 && top < innerHeight,
  };
}"""
REACHABLE = "a[href], button, select, input, summary, [tabindex='0']"


async def assert_reached_by_keyboard(page: Page) -> None:
    """Tab comes to all that can be operated or scrolled, and a ring of contrast 3 or more shows where it is."""
    for _ in range(await page.locator(REACHABLE).count() + 1):  # once round, over the end of the page
        await page.keyboard.press("Tab")
        at = await page.evaluate(FOCUSED)
        if at is None:
            continue
        assert at["seen"], at
        assert at["ring"] >= 2, at
        assert contrast(at["colour"], at["ground"]) >= 3, at
    missed = f":is({REACHABLE}):not([data-reached])"
    left = await page.locator(missed).evaluate_all(
        "nodes => nodes.filter(node => node.checkVisibility()).map(node => node.outerHTML)"
    )
    assert left == []


async def screenshot(page: Page, name: str) -> None:
    """The whole page as ``build/console/NAME.png``."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
