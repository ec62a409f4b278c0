"""What a person sees of a full console, hears of it and reaches by keyboard, in both schemes, wide and narrow."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from msgspec.structs import replace
from playwright.async_api import Page

from streams.console.desk import Snapshot
from streams.console.serve import make_app
from streams.console.why import Attention, Named
from streams.settings import Settings
from tests.contrast import contrast
from tests.integration.consoles import (
    DESK,
    SMALL,
    TABLET,
    assert_accessible,
    assert_reached_by_keyboard,
    chromium,
    page_on,
    screenshot,
)
from tests.integration.full_console import history, snapshot, why
from tests.integration.test_console_page import STILL, HandedOut, ask, page_of

pytestmark = pytest.mark.integration

CANVASES = """nodes => nodes.map(node => ({
  role: node.getAttribute("role"), name: node.getAttribute("aria-label"), instead: node.textContent,
}))"""
LONG = 128 * "W"
TURNED = "\u202eabc"
"""After its first character all that follows is drawn from right to left, and words of the page with it."""
INKS = """async nodes => (await new Promise(requestAnimationFrame), nodes.map(node => {
  const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  copy.drawImage(node, 0, 0);
  const { data } = copy.getImageData(0, 0, node.width, node.height);
  const seen = new Map();
  for (let at = 0; at < data.length; at += 4)
    if (data[at + 3] === 255) {
      const ink = `rgb(${data[at]}, ${data[at + 1]}, ${data[at + 2]})`;
      seen.set(ink, (seen.get(ink) ?? 0) + 1);
    }
  return [...seen].sort((one, other) => other[1] - one[1])[0]?.[0] ?? "";
}))"""
"""Of each canvas the colour that most of its opaque pixels have, once drawn: of new colours it hears with a frame."""

ANNOUNCED = """() => {
  window.announced = [];
  const regions = "[role=status], [role=alert], [aria-live]:not([aria-live=off])";
  for (const region of document.querySelectorAll(regions))
    new MutationObserver(() => { window.announced.push(region.textContent); })
      .observe(region, { childList: true, characterData: true, subtree: true });
}"""
"""From now on notes what is read out."""


class Full(HandedOut):
    """Snapshots with something in every place."""

    def __init__(self) -> None:
        super().__init__()
        self.answers["shopper-1"] = why("shopper-1")
        self.late_s = 0.4

    async def history(self) -> bytes:
        return msgspec.json.encode(history())

    def tell(self, _now_ms: int = 0) -> int:
        self._drawn += 1
        self._snapshots.put_nowait(msgspec.json.encode(self.made(self._drawn)))
        return self._drawn

    def made(self, number: int) -> Snapshot:
        return snapshot(number, self.late_s)


class Uncompared(Full):
    """The newest report of the experiment has too few people to compare; those before had more."""

    def made(self, number: int) -> Snapshot:
        (told,) = super().made(number).experiments
        arms = tuple(replace(arm, against_first={}) for arm in told.report.arms)
        told = replace(told, report=replace(told.report, arms=arms))
        return replace(super().made(number), experiments=[told])


class Silent(Full):
    """No report follows the experiment's newest."""

    def made(self, number: int) -> Snapshot:
        (told,) = super().made(number).experiments
        return replace(super().made(number), experiments=[replace(told, silent=True)])


@contextlib.asynccontextmanager
async def full_page(live: Full, language: str = "en", **context: Any) -> AsyncIterator[Page]:
    """The page with a snapshot on it, and an answer about a person, by a clock that stands still."""
    runner = web.AppRunner(make_app(live, Settings()), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    live.tell()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        async with chromium() as browser, page_on(browser, url, language, STILL, **context) as page:
            await ask(page, "shopper-1")
            await page.wait_for_selector("#why-lost tbody tr")
            yield page
    finally:
        await runner.cleanup()


async def named(page: Page) -> list[str]:
    """The names of all charts; each is an image, and says the same where it cannot be drawn."""
    found = await page.locator("canvas:visible").evaluate_all(CANVASES)
    assert [each["role"] for each in found] == ["img"] * len(found)
    assert [each["instead"] for each in found] == [each["name"] for each in found]
    return [each["name"] for each in found]


def test_every_chart_says_what_it_shows_of_whom_and_its_latest_value() -> None:
    async def scenario() -> None:
        live = Full()
        async with full_page(live) as page:
            names = await named(page)
            assert len(names) == len(set(names)) == 6 * 4 + 3 + 1 + 2
            assert "Lane 3, Time lag: over the last three minutes, now 3.4 s" in names
            assert "Lane 3, Age of events when placed: over the last three minutes, now p50 11 ms, p99 49 ms" in names
            assert (
                "before, Clicks / predicted clicks: over the last three minutes, now fewer than 1,000 outcomes" in names
            )
            assert "Interval of control as it narrows, now 3.77 % to 4.32 %" in names
            assert "Interval of warmth, warmer as it narrows, now -0.0004 to 0.0046" in names
            live.late_s = 60.4
            await live.draw(page)
            assert "Lane 3, Time lag: over the last three minutes, now 1 min 03" in await named(page)
            await page.select_option("#language", "zh")
            await page.wait_for_selector("html[lang=zh-Hans]")
            assert all("当前" in name for name in await named(page))

    asyncio.run(scenario())


class Untold(Full):
    """On a broker that tells no members of a group, as the embedded one."""

    def made(self, number: int) -> Snapshot:
        told = super().made(number)
        return replace(told, members=None, lanes=[replace(lane, owner=None) for lane in told.lanes])


def test_of_owners_that_the_broker_does_not_tell_nothing_is_said() -> None:
    async def scenario() -> None:
        async with full_page(Untold()) as page:
            assert set(await page.locator("#lanes [data-field=owner]").all_inner_texts()) == {"–"}
            assert "Group salience, members: –." in await page.locator("#facts").inner_text()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("language", "first", "other"),
    [("en", "compared with", "too little to compare"), ("zh", "比较基准", "数据太少，无法比较")],
)
def test_an_arm_that_the_newest_report_does_not_compare_says_so(language: str, first: str, other: str) -> None:
    async def scenario() -> None:
        async with full_page(Uncompared(), language) as page:
            assert await page.locator("#experiments [data-field=difference]").all_inner_texts() == [first, other]
            (name,) = [name for name in await named(page) if "warmth, warmer" in name]
            assert name.endswith(other)

    asyncio.run(scenario())


@pytest.mark.parametrize(("language", "said"), [("en", "no difference is certain yet"), ("zh", "尚无确定的差异。")])
def test_what_an_experiment_shows_is_said_in_the_pages_language(language: str, said: str) -> None:
    async def scenario() -> None:
        async with full_page(Full(), language) as page:
            assert await page.locator("#experiments article p").all_inner_texts() == [said]

    asyncio.run(scenario())


@pytest.mark.parametrize(("language", "says"), [("en", "not judged since"), ("zh", "起未再评估")])
def test_an_experiment_that_no_report_follows_says_so(language: str, says: str) -> None:
    async def scenario(live: Full) -> str:
        async with full_page(live, language) as page:
            return await page.locator("#experiments h4").inner_text()

    assert says in asyncio.run(scenario(Silent()))
    assert says not in asyncio.run(scenario(Full()))


@pytest.mark.parametrize("viewport", [DESK, TABLET, SMALL], ids=["wide", "middle", "narrow"])
@pytest.mark.parametrize(("scheme", "language"), [("light", "en"), ("dark", "zh")])
def test_all_of_it_can_be_read_and_reached(scheme: str, language: str, viewport: dict[str, int]) -> None:
    async def scenario() -> None:
        async with full_page(Full(), language, color_scheme=scheme, viewport=viewport) as page:
            await assert_accessible(page)
            await assert_reached_by_keyboard(page)
            await screenshot(page, f"full-{scheme}-{viewport['width']}")

    asyncio.run(scenario())


class Wordy(Full):
    """Names of 128 letters without a place to break, as anybody may write to a topic."""

    def __init__(self) -> None:
        super().__init__()
        told, ad = self.answers["shopper-1"], Named(ad_id=LONG, title="", category="")
        slots = [replace(won, ad=ad, campaign_id=LONG, attention=[Attention(ad=ad, weight=1.0)]) for won in told.slots]
        past, lost = [replace(one, ad=ad) for one in told.history], [replace(one, ad=ad) for one in told.lost]
        self.answers["shopper-1"] = replace(told, arm=LONG, model=LONG, slots=slots, history=past, lost=lost)

    def made(self, number: int) -> Snapshot:
        told = super().made(number)
        (trial,) = told.experiments
        about = dict.fromkeys(("model", "owner", "error", "topic", "name"), LONG)
        return replace(
            told,
            group=LONG,
            people=[LONG[:64]],
            alarms=[replace(one, about={**one.about, **about}) for one in told.alarms],
            lanes=[replace(one, owner=LONG) for one in told.lanes],
            arms=[replace(one, arm=f"{LONG}{one.arm}") for one in told.arms],
            experiments=[replace(trial, report=replace(trial.report, experiment=LONG))],
            models=[replace(one, model=f"{LONG}{one.model}") for one in told.models],
            drifts=[replace(one, model=LONG) for one in told.drifts],
            day=replace(told.day, campaigns=[replace(each, campaign=LONG) for each in told.day.campaigns]),
            refused=[replace(one, topic=LONG, error=LONG, message=LONG) for one in told.refused],
        )


@pytest.mark.parametrize(("shown", "language"), [(Full, "en"), (Full, "zh"), (Wordy, "en")])
def test_nothing_scrolls_sideways_however_wide_the_page_is(shown: type[Full], language: str) -> None:
    async def scenario() -> None:
        async with full_page(shown(), language) as page:
            cut = """nodes => nodes.filter(node => node.scrollWidth > node.clientWidth)
              .map(node => node.querySelector("table")?.id ?? node.tagName)"""
            for width in (*range(320, 1_280, 40), 1_280):
                await page.set_viewport_size({"width": width, "height": 900})
                assert (width, await page.locator(".wide, .long, html").evaluate_all(cut)) == (width, [])

    asyncio.run(scenario())


def test_no_card_has_a_name_without_a_value() -> None:
    async def scenario() -> None:
        async with full_page(Full(), viewport=SMALL) as page:
            blank = """nodes => nodes.filter(node => node.checkVisibility() && !node.innerText.trim()
              && ![...node.querySelectorAll("canvas")].some(each => each.checkVisibility())
              ).map(node => node.outerHTML)"""
            assert await page.locator("tbody td").evaluate_all(blank) == []

    asyncio.run(scenario())


def test_the_colours_follow_the_system_at_once_charts_too_unless_they_were_chosen() -> None:
    async def scenario() -> None:
        async with full_page(Full(), color_scheme="light") as page:

            async def colours() -> tuple[str, set[str]]:
                ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
                return ground, set(await page.locator("#lanes canvas").evaluate_all(INKS))

            light = await colours()
            await page.emulate_media(color_scheme="dark")
            dark = await colours()
            assert (len(light[1]), len(dark[1])) == (1, 1)
            assert (light[0] != dark[0], light[1] != dark[1]) == (True, True)
            await page.select_option("#theme", "light")
            assert await colours() == light
            await page.select_option("#theme", "dark")
            await page.emulate_media(color_scheme="light")
            assert await colours() == dark
            await page.select_option("#theme", "auto")
            assert await colours() == light
            await page.select_option("#theme", "dark")
            await page.emulate_media(media="print")
            assert (await colours())[0] == light[0], "paper is white"

    asyncio.run(scenario())


def test_a_change_of_state_is_read_out_once_and_how_long_nothing_has_come_is_shown_alone() -> None:
    async def scenario() -> None:
        live = HandedOut()
        async with page_of(live) as page:
            await page.evaluate(ANNOUNCED)
            for _ in range(3):
                await live.draw(page)
            for silent_s in (6, 7, 8):
                await page.evaluate(f"window.later_ms = {1_000 * silent_s}")
                await page.wait_for_selector(f"#state:has-text('{silent_s} s')")
            (said,) = await page.evaluate("window.announced")
            assert "nothing" in said
            live.tell()  # for whoever is still told on the connection that the page has given up
            await live.draw(page)
            assert await page.inner_text("#state") == "✓ everything keeps up"
            assert await page.evaluate("window.announced") == [said, "✓ everything keeps up"]

    asyncio.run(scenario())


class Crowd(Full):
    """Each snapshot has other people in it than the one before, as in a shop full of them."""

    def made(self, number: int) -> Snapshot:
        return replace(super().made(number), people=[f"shopper-{number}-{at}" for at in range(10)])


@pytest.mark.parametrize("come", ["focus", "hover"])
def test_people_to_pick_from_stay_while_one_of_them_has_the_focus_or_is_pointed_at(come: str) -> None:
    async def scenario() -> None:
        live = Crowd()
        async with full_page(live) as page:
            people = page.locator("#why-recent button")
            before = await people.all_inner_texts()
            await getattr(people.nth(2), come)()
            for _ in range(3):
                await live.draw(page)
            assert await people.all_inner_texts() == before
            if come == "focus":
                assert await page.evaluate("document.activeElement.textContent") == before[2]
            await page.focus("#why-user")
            await page.mouse.move(0, 0)
            await live.draw(page)
            assert not {*before} & {*await people.all_inner_texts()}

    asyncio.run(scenario())


def test_of_an_answer_about_a_person_one_sentence_is_read_out_and_none_of_its_tables() -> None:
    async def scenario() -> None:
        live = Full()
        live.answers["shopper-2"] = why("shopper-2")
        async with full_page(live) as page:
            await page.evaluate(ANNOUNCED)
            await ask(page, "shopper-2")
            await page.wait_for_selector("#why[data-user=shopper-2]:not([aria-busy])")
            await page.click("#why-slots button:text-is('1')")
            await page.wait_for_selector("#why-slots button[aria-pressed=true]:text-is('1')")
            (said,) = await page.evaluate("window.announced")
            assert said == await page.inner_text("#why-said")
            assert said.startswith("User shopper-2, placement ")

    asyncio.run(scenario())


def test_where_the_system_forces_its_colours_bars_and_the_chosen_slot_still_show() -> None:
    async def scenario() -> None:
        async with full_page(Full(), forced_colors="active") as page:

            async def grounds(selector: str) -> set[str]:
                painted = "nodes => nodes.map(node => getComputedStyle(node).backgroundColor)"
                return {*await page.locator(selector).evaluate_all(painted)}

            (page_ground,) = await grounds("body")
            for selector in (".gauge > .full", ".gauge > .mark", ".share", "button[aria-pressed=true]"):
                (ground,) = await grounds(selector)
                assert contrast(ground, page_ground) >= 3, selector
            (pressed,), (other,) = await grounds("button[aria-pressed=true]"), await grounds("#why-form button")
            assert pressed != other

    asyncio.run(scenario())


class Turned(Full):
    """Names that would turn about the sentences that they stand in."""

    def __init__(self) -> None:
        super().__init__()
        self.answers["shopper-1"] = replace(self.answers["shopper-1"], user=TURNED, arm=TURNED)

    def made(self, number: int) -> Snapshot:
        told = super().made(number)
        alarms = [replace(one, about={**one.about, "owner": TURNED}) for one in told.alarms]
        lanes = [replace(one, owner=TURNED) for one in told.lanes]
        return replace(told, group=TURNED, alarms=alarms, lanes=lanes, people=[TURNED])


def test_no_name_turns_the_words_about_that_it_stands_among() -> None:
    async def scenario() -> None:
        async with full_page(Turned()) as page:
            for place in ("#facts", "#alarms li", "#lanes [data-field=owner]", "#why-recent button", "#why-said"):
                text = await page.locator(place).first.inner_text()
                assert ("\\u202eabc" in text, "\u202e" in text) == (True, False), place

    asyncio.run(scenario())
