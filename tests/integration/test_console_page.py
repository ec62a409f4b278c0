"""The console's page in Chromium, on snapshots and answers that the test hands out: no broker, and nothing waits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from playwright.async_api import Page, Route

from streams.console.desk import Desk
from streams.console.serve import Live, make_app
from streams.console.why import Attention, Named, Past, Why, Won
from streams.control_wire import Drift
from streams.experiments.report import ArmReport, decode_report, encode_report
from streams.settings import Settings
from streams.wire import encode_json
from tests.builders import START_MS, Record
from tests.integration.consoles import chromium, page_on, values
from tests.integration.workers import until
from tests.unit.consoles import group, partition
from tests.unit.test_console import outcome
from tests.unit.test_console_alarms import news
from tests.unit.test_console_trials import report

pytestmark = pytest.mark.integration

WELL = news(group(*(partition(0, topic=topic) for topic in ("ad-impressions", "clicks"))))
STILL = """window.later_ms = 0;
performance.now = () => window.later_ms;
"""
"""A clock that the test alone puts forward. Of a page that waited too long by its own, on a machine that is slow, the
next snapshot would go to the connection that it has given up."""
ANSWERED = """() => {
const json = Response.prototype.json;
window.answered = 0;
Response.prototype.json = async function () {
  try { return await json.call(this); } finally { setTimeout(() => { window.answered += 1; }); }
};
}"""
"""Counts the answers that the page has read and dealt with: what follows an answer runs before any timeout does."""

FORGETFUL = """for (const area of ["localStorage", "sessionStorage"])
  Object.defineProperty(window, area, { get() { throw new DOMException("blocked", "SecurityError"); } });
"""
"""As of a browser that blocks storage."""

CHARTS = """window.charts = 0;
for (const [name, more] of [["addEventListener", 1], ["removeEventListener", -1]]) {
  const does = window[name];
  window[name] = function (kind, ...rest) {
    if (kind === "dppxchange") window.charts += more;
    return does.call(window, kind, ...rest);
  };
}
"""
"""Counts the charts that live: each listens to the window for as long as it does, and their library once for all."""


class HandedOut(Live):
    """Snapshots when the test draws one, and answers about people when it lets them go."""

    def __init__(self) -> None:
        self.listeners = set()
        self.desk = Desk(Settings(), 1)
        self.answers: dict[str, Why] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.caught_up = True
        self._drawn = 0
        self._snapshots: asyncio.Queue[bytes] = asyncio.Queue()

    async def next(self) -> bytes:
        return await self._snapshots.get()

    async def history(self) -> bytes:
        return b"{}"

    async def why(self, user: str) -> web.Response:
        if user in self.gates:
            await self.gates[user].wait()
        return web.Response(body=msgspec.json.encode(self.answers[user]), content_type="application/json")

    def drifted(self, *drifts: Drift) -> None:
        (control,) = [tail for tail in self.desk.tails() if tail.topic == "control"]
        control.take([Record("control", 0, 0, START_MS, drift.key, msgspec.json.encode(drift)) for drift in drifts])

    def tell(self, now_ms: int = START_MS) -> int:
        """Send a snapshot; its number, which the page's facts tell as records skipped."""
        self._drawn += 1
        snapshot = self.desk.tick(WELL, now_ms, caught_up=self.caught_up, skipped=self._drawn)
        self._snapshots.put_nowait(msgspec.json.encode(snapshot))
        return self._drawn

    async def draw(self, page: Page, now_ms: int = START_MS) -> None:
        """Send a snapshot and wait until it is on the page."""
        number = self.tell(now_ms)

        async def drawn() -> bool:
            return f"Records skipped: {number}," in await page.inner_text("#facts")

        await until(drawn, f"snapshot {number} is drawn")


@contextlib.asynccontextmanager
async def page_of(live: HandedOut, first: str = "", **of_page: Any) -> AsyncIterator[Page]:
    """The page, with a first snapshot on it, by a clock that stands still."""
    runner = web.AppRunner(make_app(live, Settings()), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    live.tell()
    try:
        async with (
            chromium() as browser,
            page_on(browser, f"http://127.0.0.1:{runner.addresses[0][1]}/", first=STILL + first, **of_page) as page,
        ):
            yield page
    finally:
        await runner.cleanup()


def drift(time_ms: int, was: float, answer: Any = "quicken") -> Drift:
    return Drift(lane=0, detector="calibration", answer=answer, was=was, now=0.5, learnt=5, model="m", time_ms=time_ms)


async def texts(page: Page, selector: str) -> list[str]:
    return await page.locator(selector).all_inner_texts()


def test_two_alarms_of_one_lane_and_detector_are_two_lines_however_often_they_are_drawn_and_go_when_over() -> None:
    async def scenario() -> None:
        live = HandedOut()
        live.drifted(drift(START_MS - 1_200_000, was=0.1), drift(START_MS, was=0.2))
        async with page_of(live) as page:
            for _ in range(3):
                await live.draw(page)
            assert [line.count("0.1 ") + 2 * line.count("0.2 ") for line in await texts(page, "#alarms li")] == [2, 1]
            assert await page.locator("#drifts tbody tr").count() == 2
            await live.draw(page, now_ms=START_MS + 900_000)
            (left,) = await texts(page, "#alarms li")
            assert "0.2 " in left
            await live.draw(page, now_ms=START_MS + 9_000_000)
            assert await texts(page, "#alarms li") == []

    asyncio.run(scenario())


def test_what_is_told_twice_is_drawn_twice_and_no_more() -> None:
    async def scenario() -> None:
        live = HandedOut()
        live.drifted(drift(START_MS, was=0.1), drift(START_MS, was=0.1))
        async with page_of(live) as page:
            for _ in range(3):
                await live.draw(page)
            assert await page.locator("#alarms li").count() == 2
            assert await page.locator("#drifts tbody tr").count() == 2
            await live.draw(page, now_ms=START_MS + 9_000_000)
            assert await texts(page, "#alarms li") == []

    asyncio.run(scenario())


def test_charts_of_rows_that_have_left_the_page_live_no_longer() -> None:
    async def scenario() -> None:
        live = HandedOut()
        async with page_of(live, first=CHARTS) as page:

            async def charts() -> int:
                return int(await page.evaluate("window.charts")) - 1

            first = await charts()
            for turn in range(3):
                live.desk = Desk(Settings(), 3)
                take = {tail.topic: tail.take for tail in live.desk.tails()}
                told = encode_json(outcome(arm=f"arm-{turn}", model=f"model-{turn}"))
                take["outcomes"]([Record("outcomes", 0, 0, START_MS, None, told)])
                take["experiment-reports"]([Record("experiment-reports", 0, 0, START_MS, b"x", report(turn, -0.1))])
                await live.draw(page)
                assert await charts() == 3 * first + 4, "an arm's, a model's and two of an experiment"
            live.desk = Desk(Settings(), 1)
            await live.draw(page)
            assert await charts() == first == await page.locator("canvas").count()

    asyncio.run(scenario())


def why(user: str, *slots: int) -> Why:
    """An answer with ads in ``slots``, each for an item of its own in the history."""
    past = [Named(ad_id=f"past-{slot}", title="", category="") for slot in slots]
    won = [
        Won(
            slot=slot,
            ad=Named(ad_id=f"ad-{slot}", title="", category=""),
            campaign_id="c",
            pctr=0.1,
            ecpm_micros=1_000,
            price_micros=1_000,
            propensity=1.0,
            attention=[Attention(ad=past[at], weight=1.0)],
            by_item=[float(other == at) for other in range(len(slots))],
        )
        for at, slot in enumerate(slots)
    ]
    return Why(
        user=user,
        placement_id=f"p-{user}",
        time_ms=START_MS,
        arm="engine",
        model="m",
        lane=0,
        temperature=1.0,
        candidates=9,
        identical=True,
        differences=[],
        session=[],
        long=[],
        history=[Past(ad=ad, kind="click", shown=True, time_s=START_MS // 1_000) for ad in past],
        slots=won,
        lost=[],
        lost_by={},
        needed_worth_micros=0,
    )


async def ask(page: Page, user: str) -> None:
    await page.fill("#why-user", user)
    await page.press("#why-user", "Enter")


async def explained(page: Page) -> str:
    return str(await page.evaluate("document.querySelector('#why').dataset.user ?? ''"))


def test_each_slots_button_shows_what_that_slots_ad_was_attended_for_though_rules_left_others_empty() -> None:
    async def scenario() -> None:
        live = HandedOut()
        live.answers["u"] = why("u", 1, 2, 4)
        async with page_of(live) as page:
            await ask(page, "u")
            await page.wait_for_selector("#why-slots tbody tr")

            async def shown() -> tuple[str, list[str], list[str]]:
                pressed = await texts(page, "#why-slots button[aria-pressed=true]")
                attended = [ad for ad, share in await values(page, "why-history", "ad", "attention") if share == "1"]
                return await page.inner_text("#why-of"), pressed, attended

            first = await shown()
            assert ("ad-1" in first[0], first[1:]) == (True, (["1"], ["past-1"]))
            for slot in (4, 2, 1):
                await page.click(f"#why-slots button:text-is('{slot}')")
                of, pressed, attended = await shown()
                assert f"slot {slot}: ad-{slot}" in of  # counted as in the placement
                assert (pressed, attended) == ([str(slot)], [f"past-{slot}"])

    asyncio.run(scenario())


def test_an_answer_that_comes_after_somebody_else_was_asked_for_is_not_shown() -> None:
    async def scenario() -> None:
        live = HandedOut()
        live.answers = {"slow": why("slow", 0), "quick": why("quick", 0)}
        live.gates["slow"] = asyncio.Event()
        async with page_of(live) as page:
            await page.evaluate(ANSWERED)
            await ask(page, "slow")
            await ask(page, "quick")
            await page.wait_for_selector("#why[data-user=quick]:not([aria-busy])")
            live.gates["slow"].set()

            async def both() -> bool:
                return bool(await page.evaluate("window.answered === 2"))

            await until(both, "both answers are dealt with")
            assert await explained(page) == "quick"
            assert await page.get_attribute("#why", "aria-busy") is None

    asyncio.run(scenario())


def test_of_languages_chosen_one_after_another_the_last_is_spoken_whichever_comes_first() -> None:
    async def scenario() -> None:
        async with page_of(HandedOut()) as page:
            held = asyncio.Event()

            async def late(route: Route) -> None:
                await held.wait()
                await route.continue_()

            await page.route("**/i18n/zh.json", late)
            await page.evaluate(ANSWERED)
            await page.select_option("#language", "zh")
            await page.select_option("#language", "en")

            async def answered(count: int) -> bool:
                return bool(await page.evaluate(f"window.answered === {count}"))

            await until(lambda: answered(1), "the words of the language chosen last are there")
            held.set()
            await until(lambda: answered(2), "those of the language chosen before come, too")
            spoken = "[document.documentElement.lang, document.getElementById('language').value]"
            assert await page.evaluate(spoken) == ["en", "en"]
            assert "Records skipped" in await page.inner_text("#facts")

    asyncio.run(scenario())


def test_a_model_says_how_old_its_latest_outcome_is() -> None:
    async def scenario() -> None:
        live = HandedOut()
        (tail,) = [tail for tail in live.desk.tails() if tail.topic == "outcomes"]
        told = [outcome(clicked=at % 4 == 0) for at in range(2_000)]
        tail.take([Record("outcomes", 0, at, START_MS, None, encode_json(one)) for at, one in enumerate(told)])
        async with page_of(live) as page:
            newest_ms = max(one.known_ms for one in told)
            for later_ms, shown in ((5_000, "5 s ago"), (7_200_000, "2 h 00 ago")):
                await live.draw(page, newest_ms + later_ms)
                assert await texts(page, "#models [data-field=latest]") == [shown]

    asyncio.run(scenario())


def test_an_experiment_says_whether_its_value_is_a_users_or_a_users_and_days() -> None:
    async def scenario() -> None:
        live = HandedOut()
        (tail,) = [tail for tail in live.desk.tails() if tail.topic == "experiment-reports"]
        arms = (ArmReport(arm="a", users=1, metrics={"revenue_micros": 7.0}),)
        one = msgspec.structs.replace(decode_report(report(1, -0.1)), primary="revenue_micros", arms=arms)
        async with page_of(live) as page:
            for at, (told, shown) in enumerate((("user_day", "a user and day, micros"), ("user", "a user, micros"))):
                value = encode_report(msgspec.structs.replace(one, value_per=told))
                tail.take([Record("experiment-reports", 0, at, START_MS, b"x", value)])
                await live.draw(page, START_MS + 1_000 * at)
                assert await texts(page, "#experiments [data-field=metric]") == [f"revenue {shown}: 7"]

    asyncio.run(scenario())


def test_where_the_browser_blocks_storage_the_page_works_and_remembers_nothing() -> None:
    async def scenario() -> None:
        live = HandedOut()
        live.answers["u"] = why("u", 0)
        async with page_of(live, first=FORGETFUL, color_scheme="light") as page:
            chosen = "['theme', 'language'].map(id => document.getElementById(id).value)"
            dark = "matchMedia(document.getElementById('dark').media).matches"
            assert (await page.evaluate(chosen), await page.evaluate(dark)) == (["auto", "en"], False)

            await page.select_option("#theme", "dark")
            await page.select_option("#language", "zh")
            await page.wait_for_selector("html[lang=zh-Hans]")
            assert (await page.evaluate(chosen), await page.evaluate(dark)) == (["dark", "zh"], True)

            await page.evaluate("document.getElementById('token').hidden = false")
            await page.fill("#token-value", "secret")
            await page.press("#token-value", "Enter")
            await page.wait_for_selector("#token", state="hidden")
            async with page.expect_request("**/api/why*") as asked:
                await ask(page, "u")
            assert (await (await asked.value).all_headers())["authorization"] == "Bearer secret"

            await page.reload()
            assert (await page.evaluate(chosen), await page.evaluate(dark)) == (["auto", "en"], False)

    asyncio.run(scenario())


EMPTY = ["arms", "experiments", "campaigns", "models", "drifts", "refused"]


def test_where_there_is_nothing_the_page_says_that_there_is_none_and_not_before_it_knows() -> None:
    async def scenario() -> None:
        live = HandedOut()
        async with page_of(live) as page:
            said = page.locator(".none:visible")
            assert await said.count() == len(EMPTY)
            assert all(await said.all_inner_texts())
            for each in EMPTY:
                assert not await page.locator(f"table#{each}").is_visible(), "heads alone say nothing"
            live.drifted(drift(START_MS, was=0.1))
            await live.draw(page)
            assert await said.count() == len(EMPTY) - 1
            assert await page.locator("#drifts").is_visible()
            live.caught_up = False
            live.desk = Desk(Settings(), 1)
            await live.draw(page)
            await page.wait_for_selector("html[data-level=waiting]")
            assert await said.count() == 0

    asyncio.run(scenario())
