"""How the console's page comes to its server in Chromium: with a token, and again where the way to it has failed."""

import asyncio

import pytest

from tests.integration.test_console_page import HandedOut, ask, page_of, why
from tests.unit.test_console_alarms import words

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


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
