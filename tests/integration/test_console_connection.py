"""How the console's page comes to its server in Chromium: with a token, and again where the way to it has failed."""

import asyncio

import pytest
from aiohttp import web
from pydantic import SecretStr

from streams.console.serve import make_app
from streams.settings import Settings
from tests.integration.consoles import chromium
from tests.integration.test_console_page import STILL, HandedOut, ask, page_of, why
from tests.unit.test_console_alarms import words

pytestmark = pytest.mark.integration

FAILS_ONCE = """const get = window.fetch;
let failed = false;
window.fetch = async (address, ...rest) => {
  if (failed || !String(address).startsWith("i18n/")) return get(address, ...rest);
  failed = true;
  throw new TypeError("Failed to fetch");
};
"""
"""As of a server that was away when it was asked for the words."""


def test_a_token_that_no_browser_can_send_is_not_taken_and_the_page_says_why_and_asks_again() -> None:
    async def scenario() -> None:
        live = HandedOut()
        live.answers["u"] = why("u", 0)
        async with page_of(live) as page:
            await page.evaluate("document.getElementById('token').hidden = false")
            assert not await page.is_visible("#token-wrong")
            for token in ("schlüssel", "pass’word", "abc\u200b", " "):
                await page.fill("#token-value", token)
                await page.press("#token-value", "Enter")
                assert await page.is_visible("#token"), token
                assert await page.inner_text("#token-wrong") == words("en")["token.wrong"]
            await page.select_option("#language", "zh")
            await page.wait_for_selector("html[lang=zh-Hans]")
            assert await page.inner_text("#token-wrong") == words("zh")["token.wrong"]
            await page.fill("#token-value", " open sesame\t")
            await page.press("#token-value", "Enter")
            assert not await page.is_visible("#token")
            async with page.expect_request("**/api/why*") as asked:
                await ask(page, "u")
            assert (await (await asked.value).all_headers())["authorization"] == "Bearer open sesame"

    asyncio.run(scenario())


def test_a_token_that_the_server_refuses_is_told_as_such_where_the_next_one_can_be_typed() -> None:
    async def scenario() -> None:
        live = HandedOut()
        runner = web.AppRunner(make_app(live, Settings(web_token=SecretStr("s3cret"))), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with chromium() as browser, await browser.new_page() as page:
                await page.goto(f"http://127.0.0.1:{runner.addresses[0][1]}/?lang=en")
                refused = page.locator("#token-refused")
                await page.locator("#token").wait_for()
                assert not await refused.is_visible()
                for token in ("secret", "S3cret"):
                    await page.fill("#token-value", token)
                    await page.press("#token-value", "Enter")
                    await refused.wait_for()
                    assert await refused.inner_text() == words("en")["token.refused"]
                    assert await page.evaluate("document.activeElement.id") == "token-value"
                live.tell()
                await page.fill("#token-value", "s3cret")
                await page.press("#token-value", "Enter")
                await page.wait_for_selector("#lanes tbody tr")
                assert not await page.is_visible("#token")
        finally:
            await runner.cleanup()

    asyncio.run(scenario())


def test_a_connection_that_stays_open_and_brings_nothing_is_given_up_for_another() -> None:
    async def scenario() -> None:
        live = HandedOut()
        async with page_of(live) as page:
            async with page.expect_request("**/api/events"):
                await page.evaluate("window.later_ms = 6_000")
            await page.wait_for_selector("html[data-silent]")
            for _ in range(2):  # the first for whoever is still told on the connection that was given up
                live.tell()
            await page.wait_for_selector("html:not([data-silent])")

    asyncio.run(scenario())


def test_words_that_could_not_be_had_are_asked_for_again_and_the_page_goes_on() -> None:
    async def scenario() -> None:
        async with page_of(HandedOut(), first=FAILS_ONCE) as page:
            assert "Records skipped" in await page.inner_text("#facts")
            assert await page.input_value("#language") == "en"

    asyncio.run(scenario())


def test_a_page_for_which_there_is_no_place_says_so_and_goes_on_when_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.console.serve.LISTENERS_MAX", 0)

    async def scenario() -> None:
        live = HandedOut()
        runner = web.AppRunner(make_app(live, Settings()), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with chromium() as browser, await browser.new_page() as page:
                await page.add_init_script(STILL)
                await page.goto(f"http://127.0.0.1:{runner.addresses[0][1]}/?lang=en")
                await page.evaluate("window.later_ms = 6_000")
                for word in ("full", "silent"):
                    text = words("en")[f"state.{word}"]
                    await page.wait_for_function("text => document.getElementById('said').innerText === text", arg=text)
                    await page.route("**/api/events", lambda route: route.fulfill(status=503, body="a proxy's word"))
                monkeypatch.setattr("streams.console.serve.LISTENERS_MAX", 1)
                live.tell()
                await page.unroute("**/api/events")
                await page.wait_for_selector("html:not([data-silent])")
        finally:
            await runner.cleanup()

    asyncio.run(scenario())
