"""``salience worker`` that stands still in the midst of a transaction: all of it delivered, nothing committed.

``python -m tests.integration.standing N``: it stops itself (SIGSTOP) where it would commit for the N-th time. Whoever
watches from outside would have to catch it there, and finds as often a commit that is under way.
"""

import os
import signal
import sys

from streams.cli import app
from streams.lanes.outbox import Outbox


def stand_still_at(number: int) -> None:
    """Stop this process before its ``number``-th commit."""
    commit, left = Outbox.commit, iter(range(number - 1, -1, -1))

    async def standing(self: Outbox) -> None:
        if next(left, None) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        await commit(self)

    Outbox.commit = standing


if __name__ == "__main__":
    stand_still_at(int(sys.argv[1]))
    app(["worker"])
