"""What the worker's web server answers, and to whom."""

import asyncio
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from pydantic import ValidationError

from streams.guard import authorised
from streams.settings import Settings
from streams.vitals import LaneVitals, Vitals
from streams.web import Web

WELL = Vitals(polls=1, caught_up=True, joined=True, lanes={0: LaneVitals("running", (1, 2), busy=False)})


def ask(vitals: Vitals, path: str, headers: dict[str, str] | None = None, **settings: object) -> tuple[int, dict]:
    async def scenario() -> tuple[int, dict]:
        server = Web(Settings(**settings), lambda: vitals)
        await server.on_start()
        try:
            async with aiohttp.ClientSession() as client, client.get(server.url + path, headers=headers) as response:
                return response.status, await response.json(content_type=None) if response.status != 404 else {}
        finally:
            await server.on_stop()

    return asyncio.run(scenario())


def test_a_worker_that_scores_every_lane_it_holds_is_ready() -> None:
    assert ask(WELL, "/healthz") == (200, {"healthy": True, "reason": ""})
    assert ask(WELL, "/readyz") == (200, {"ready": True, "reason": "", "lanes": {"0": "running"}})


def test_a_worker_in_a_rebalance_is_healthy_but_not_ready() -> None:
    status, told = ask(replace(WELL, joined=False), "/readyz")
    assert (status, told["ready"]) == (503, False)
    assert ask(replace(WELL, joined=False), "/healthz")[0] == 200


def test_a_worker_that_ends_says_why_on_both() -> None:
    ending = replace(WELL, ending="DeliveryError: too large")
    assert ask(ending, "/healthz") == (503, {"healthy": False, "reason": "DeliveryError: too large"})
    assert ask(ending, "/readyz")[1]["reason"] == "DeliveryError: too large"


def test_with_a_token_only_its_bearer_is_answered_and_it_is_never_told() -> None:
    refused = [None, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}, {"Authorization": "s3cret"}]
    for headers in refused:
        status, told = ask(WELL, "/readyz", headers, web_token="s3cret")
        assert status == 401
        assert "s3cret" not in str(told)
    assert ask(WELL, "/readyz", {"Authorization": "Bearer s3cret"}, web_token="s3cret")[0] == 200


def test_a_token_that_is_not_ascii_is_compared_like_any_other() -> None:
    assert not authorised({"Authorization": "Bearer \udcff"}, "ä")
    assert authorised({"Authorization": "bearer ä"}, "ä")


def test_other_paths_and_methods_are_not_there() -> None:
    assert ask(WELL, "/")[0] == 404
    assert ask(WELL, "/router")[0] == 404


def test_a_token_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    told = {"web_token_file": tmp_path / "token"}
    assert ask(WELL, "/healthz", {"Authorization": "Bearer s3cret"}, **told)[0] == 200
    assert ask(WELL, "/healthz", **told)[0] == 401


def test_an_address_beyond_loopback_needs_a_token() -> None:
    with pytest.raises(ValidationError, match="SALIENCE_WEB_TOKEN"):
        Settings(web_host="0.0.0.0")
    for host in ("127.0.0.1", "::1", "localhost"):
        Settings(web_host=host)
    told = Settings(web_host="0.0.0.0", web_token="s3cret")
    assert "s3cret" not in repr(told) + told.model_dump_json()
