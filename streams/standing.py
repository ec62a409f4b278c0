"""The values of a worker's gauges, read off its lanes at each scrape."""

from collections.abc import Collection

import numpy as np

from scoring.budgets import Budgets
from scoring.engine import Engine
from streams.conservation import unaccounted
from streams.lanes.lane import Lane
from streams.metrics.worker import Standing


def standing(lanes: Collection[Lane], engine: Engine, budgets: Budgets, *, ready: bool) -> Standing:
    """Sums over ``lanes``; a lane being taken over holds nothing yet."""
    held = [lane.held for lane in lanes if lane.held is not None]
    pacing_error, unbilled_share = budgets.standing()
    curves = [state.clicks.layer.examination.curve[: engine.policy.slots] for state in held]
    sources = [lane.queues.sources for lane in lanes]
    return Standing(
        lanes=tuple(lane.stage for lane in lanes),
        queued_records=(sum(len(two[0].records) for two in sources), sum(len(two[1].records) for two in sources)),
        queued_bytes=(sum(two[0].bytes for two in sources), sum(two[1].bytes for two in sources)),
        users=sum(len(state.store) for state in held),
        recovery_left=sum(lane.recovery_left for lane in lanes),
        unaccounted=sum(unaccounted(state.totals) for state in held),
        ads=len(engine.catalogue),
        shown=engine.shown,
        pacing_error=pacing_error,
        unbilled_share=unbilled_share,
        ledger_share=max((state.ledger.ledger.full_share for state in held), default=0.0),
        ready=ready,
        models_refused=len(engine.models.refused),
        examined=tuple(np.mean(curves, axis=0).tolist()) if curves else (),
    )
