"""A lane that is ahead of the clock, and how it comes back. No I/O.

A lane's time is that of its newest record, as far as the clock allows, and never goes back: all windows go by it. But
where the clocks of a producer and of this machine were ahead for a moment, by a week or a year, all events after that
would be late for as long, and so would those of every later owner of the lane.
"""

import numpy as np

from scoring.traffic import Traffic
from scoring.units import DAY_MS, HOUR_MS
from streams.lanes.clicks import LaneClicks
from streams.lanes.queues import LaneQueues
from streams.step import LaneState, Step

AHEAD_MS = HOUR_MS
"""How much further than the tolerance a lane may be ahead: clocks that are set by the network step by less."""


def right_time(state: LaneState, queues: LaneQueues, limit_ms: int, late_ms: int) -> int | None:
    """The time to which the lane is to go back, that of its newest believable record; None where it may be right.

    ``limit_ms``: now and the tolerance; ``late_ms``: as in `scoring.cleaning.Rules`. Two clocks must say that the lane
    is ahead: this machine's and those of the senders of most records queued. Else it may be this machine's that is
    behind; and records that are late by either time tell nothing.
    """
    if max(state.stream_ms, *state.watermarks_ms, state.clicks.layer.clock_ms) <= limit_ms + AHEAD_MS:
        return None
    times_ms = np.concatenate([queue.times_ms for queue in queues.sources])
    believed = times_ms[(limit_ms - late_ms <= times_ms) & (times_ms <= limit_ms)]
    return int(believed.max()) if 2 * len(believed) > len(times_ms) else None


def set_back(state: LaneState, step: Step, time_ms: int) -> None:
    """Let the lane go back to ``time_ms``. What was counted while it was ahead counts for the day to which it goes.

    Open impressions wait for a click as long as new ones do, and guests' placements end now. The rows of people who
    acted meanwhile stay as they are: what they did counts as newer than all that they do until then.
    """
    state.watermarks_ms, state.stream_ms = (time_ms, time_ms), time_ms
    state.traffic = Traffic(state.traffic.mean)
    ends_ms = time_ms + step.engine.policy.placement_ttl_ms
    for user in [user for user, until_ms in state.guests.until_ms.items() if until_ms > ends_ms]:
        state.guests.put(user, time_ms)
    clicks = state.clicks
    clicks.layer.clock_ms = min(clicks.layer.clock_ms, time_ms)
    state.clicks = LaneClicks.restore(step.learning, clicks.parts())
    state.ledger.ledger.set_back(time_ms // DAY_MS)
    if step.budgets is not None:
        step.budgets.set_back(time_ms // DAY_MS)
