"""How our web servers begin to listen, and what is told where they cannot."""

from aiohttp import web


class ListenError(RuntimeError):
    """A server cannot listen where it is told to; the message says what to do."""


async def listen(runner: web.AppRunner, host: str, port: int) -> str:
    """The address, as a URL, once ``runner`` listens there; ``port`` 0 takes a free one. Raises `ListenError`."""
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise ListenError(
            f"cannot listen on {host}:{port}: {error.strerror or error}. Another one: --port 0"
        ) from error
    at, bound = runner.addresses[0][:2]
    return f"http://{f'[{at}]' if ':' in at else at}:{bound}"
