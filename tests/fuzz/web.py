"""The worker's web server: raw bytes on a connection of its own."""

import asyncio

from aiohttp import web

from streams.listening import runner_of
from streams.vitals import LaneVitals, Vitals
from streams.web import LINE_BYTES_MAX, make_app
from tests.fuzz.state import folder
from tests.fuzz.target import Check, Target

ANSWERED_WITHIN_S = 5.0
ANSWER_BYTES_MAX = 65_536
WELL = Vitals(polls=1, joined=True, lanes={0: LaneVitals("running", (1, 2), busy=False)})
_ASKED = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret\r\nConnection: close\r\n\r\n"


def _http() -> Check:
    loop = asyncio.new_event_loop()
    path = str(folder() / "socket")

    async def serve() -> None:
        runner = runner_of(make_app(lambda: WELL, lambda: "s3cret", "127.0.0.1"), line_bytes_max=LINE_BYTES_MAX)
        await runner.setup()
        await web.UnixSite(runner, path).start()

    async def ask(data: bytes, *, ends: bool = True) -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(data)
            if ends:
                writer.write_eof()
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                return await reader.read(ANSWER_BYTES_MAX)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    loop.run_until_complete(serve())

    def check(data: bytes) -> None:
        """Whatever came, the next one to ask is answered."""
        told = loop.run_until_complete(ask(data))
        assert b"Traceback" not in told
        assert b"s3cret" not in told
        assert loop.run_until_complete(ask(_ASKED, ends=False)).startswith(b"HTTP/1.1 200 OK")

    return check


WEB = (
    Target(
        "http",
        _http,
        lambda: [_ASKED, _ASKED.replace(b"/healthz", b"/readyz"), b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"],
        [b"Transfer-Encoding: chunked\r\n", b"Content-Length: ", b"HTTP/1.1", b"\r\n\r\n", b"Expect: 100-continue\r\n"],
    ),
)
