"""People's requests on the control topic (consent, erasure), settled lane by lane between two slices. No I/O."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from scoring.rows import RowStore
from streams.control import Control
from streams.control_wire import Consent, Erasure
from streams.privacy.consent import Watermarks, digest_of

Request = Consent | Erasure
R = TypeVar("R", Consent, Erasure)
_Kind = tuple[str, type[Request], bool]
"""Of a request: the user, its type, and whether it grants something."""


class Requests:
    """People's requests by lane, in the topic's order; of each user and kind only the newest.

    A consent and a refusal are different kinds, since a consent does not undo a refusal: even if both come at once,
    what was held before is forgotten.

    A lane follows by offset: between two slices it settles the requests since, and its lane row says how far it is.
    """

    def __init__(self, control: Control, partition_of: Callable[[bytes], int]) -> None:
        self.control = control
        self.answers: dict[bytes, Consent] = {}
        """Standing answers by the user's digest, the objects that `Control` holds: 130 bytes more for each."""
        self.erasures: dict[bytes, Erasure] = {}
        """Likewise, each user's newest request to be forgotten."""
        self._partition_of = partition_of
        self._of_lane: dict[int, dict[_Kind, tuple[int, Request]]] = {}
        self._newest: dict[int, int] = {}
        control.on(Consent, lambda user, answer: self._note(Consent, self.answers, user, answer))
        control.on(Erasure, lambda user, erasure: self._note(Erasure, self.erasures, user, erasure))

    def _note(self, kind: type[R], standing: dict[bytes, R], user: str, request: R | None) -> None:
        lane = self._partition_of(user.encode())
        requests = self._of_lane.setdefault(lane, {})
        if request is None:
            standing.pop(digest_of(user.encode()), None)
            for granted in (False, True):
                requests.pop((user, kind, granted), None)
            return
        standing[digest_of(user.encode())] = request
        of = user, kind, isinstance(request, Consent) and request.granted
        _, former = requests.pop(of, (-1, request))  # the new one comes last
        if former.time_ms > request.time_ms:  # the lane may not have settled the former, which holds back more
            request = msgspec.structs.replace(request, time_ms=former.time_ms)
        self._newest[lane] = self.control.next_offset - 1
        requests[of] = self._newest[lane], request

    def waits(self, lane: int, offset: int) -> bool:
        """Whether there are requests for ``lane`` from ``offset`` on. Safe from any thread."""
        return self._newest.get(lane, -1) >= offset

    def since(self, lane: int, offset: int) -> list[Request]:
        """The lane's requests from ``offset`` on, oldest first."""
        found: list[Request] = []
        for at, request in reversed(self._of_lane.get(lane, {}).values()):
            if at < offset:
                break
            found.append(request)
        return found[::-1]


def settle(requests: list[Request], store: RowStore, watermarks: Watermarks) -> list[bytes]:
    """Apply ``requests`` to a lane, in place. Returns the users who asked to be forgotten.

    The watermark covers everything in the user's row, since nothing of it may come back. A consent given again counts
    from its own time on. The row is removed even where the watermark is ahead of the request, as a device's clock or a
    consent's own time may have put it there. So a request that is settled twice, as after a crash, forgets twice: the
    safer of the two errors.
    """
    forgotten = []
    for request in requests:
        user = request.user_id.encode()
        if isinstance(request, Consent) and request.granted:
            watermarks.agree(user, request)
            continue
        forgotten.append(user)
        row = store.find(user)
        newest_ms = int(store.rows["time_ms"][row]) if row >= 0 else 0
        watermarks.raise_to(user, max(request.time_ms, newest_ms))
        store.remove(user)
    return forgotten
