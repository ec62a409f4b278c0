"""What the worker's web server answers, and to whom."""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from streams.cli import app
from streams.guard import Bearer, authorised
from streams.listening import ListenError
from streams.settings import Settings
from streams.vitals import LaneVitals, Vitals
from streams.web import Web, check_port

WELL = Vitals(polls=1, joined=True, lanes={0: LaneVitals("running", (1, 2), busy=False)})


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


def test_a_worker_whose_port_is_taken_does_not_start_and_says_so_in_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = CliRunner().invoke(app, ["worker"], env={"SALIENCE_WEB_PORT": str(port)})

    assert (told.exit_code, told.stderr) == (1, f"Error: SALIENCE_WEB_PORT={port} is taken; 0 takes a free one\n")


def test_an_address_of_another_machine_is_named_as_one_that_cannot_be_listened_on() -> None:
    with pytest.raises(ListenError, match=r"SALIENCE_WEB_HOST=203\.0\.113\.1, SALIENCE_WEB_PORT=0: .*assign"):
        check_port(Settings(web_host="203.0.113.1", web_token="secret"))
    check_port(Settings(web_host="localhost"))


def test_a_token_that_is_not_ascii_is_compared_like_any_other() -> None:
    assert not authorised({"Authorization": "Bearer \udcff"}, "ä")
    assert authorised({"Authorization": "bearer ä"}, "ä")


def test_on_loopback_a_foreign_name_is_refused_and_the_machines_own_are_not() -> None:
    assert ask(WELL, "/readyz", {"Host": "rebound.example:9309"})[0] == 403
    assert ask(WELL, "/readyz", {"Host": "LOCALHOST:9309"})[0] == 200
    beyond = {"Host": "worker.example:9309", "Authorization": "Bearer s3cret"}
    assert ask(WELL, "/readyz", beyond, web_host="0.0.0.0", web_token="s3cret")[0] == 200


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


def test_a_token_is_rotated_by_writing_its_file_and_one_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    file.chmod(0o600)
    token = Bearer(Settings(web_token_file=file, web_host="0.0.0.0"))
    assert token() == "first"
    file.write_text("the second\n")
    assert token() == "the second"
    for unreadable in (b"", b"\n", b"\xff\xfe", b"not for a header\x07"):
        file.write_bytes(unreadable)
        assert token() == "the second"
    file.unlink()
    assert token() == "the second"
    file.write_text("the third\n")
    assert token() == "the third"


def test_a_server_answers_the_bearer_of_the_token_that_its_file_has_now(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    file.chmod(0o600)

    async def scenario() -> list[int]:
        server = Web(Settings(web_token_file=file), lambda: WELL)
        await server.on_start()
        try:
            file.write_text("the second\n")
            async with aiohttp.ClientSession() as client:
                asked = [{"Authorization": f"Bearer {token}"} for token in ("first", "the second")]
                return [(await client.get(f"{server.url}/healthz", headers=each)).status for each in asked]
        finally:
            await server.on_stop()

    assert asyncio.run(scenario()) == [401, 200]
