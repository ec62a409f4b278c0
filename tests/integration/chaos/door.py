"""A door in front of a broker: a TCP relay that can be shut, behind which the broker is as if its cable were cut."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK = 65_536


class Door:
    """Relays ``port`` to ``target`` on loopback, from `start` to `stop`, in a thread of its own.

    Shut, it takes connections and bytes as a network that loses packets does: nothing is refused, nothing arrives.
    Opened again, what was under way arrives late, as TCP would send it again.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._loop: asyncio.AbstractEventLoop
        self._passable = asyncio.Event()
        self._relays: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"door-{self.port}")
        self._thread.start()
        self._passable.set()
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", self.port))

    def stop(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def shut(self) -> None:
        self._loop.call_soon_threadsafe(self._passable.clear)

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._passable.set)

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            await self._passable.wait()
            with contextlib.suppress(OSError):  # the broker is down: the client's connection ends too
                there, onward = await asyncio.open_connection("127.0.0.1", self._target)
                try:
                    await self._relay_both(reader, writer, there, onward)
                finally:
                    onward.transport.abort()
        except asyncio.CancelledError:
            pass  # the door is being taken away
        finally:
            writer.transport.abort()
            self._relays.discard(task)

    async def _relay_both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        onward: asyncio.StreamWriter,
    ) -> None:
        """Until either side ends."""
        ways = [asyncio.create_task(self._relay(reader, onward)), asyncio.create_task(self._relay(there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._passable.wait()
            writer.write(data)
            await writer.drain()
