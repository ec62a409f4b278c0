"""Every record that comes in has one fate, and the lane rows' totals show it: in = the sum of the fates, always."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from scoring.events import FILTERED, Outcome
from scoring.update import Applied
from streams.decode import Decoded

FATES = ("applied", "duplicate", "replayed", "late", "filtered", "dead", "rerouted")
"""What becomes of a record. ``filtered`` is the sum of `RULES`."""
RULES = tuple(outcome.name.lower() for outcome in FILTERED)


def account(events_in: int, decoded: Decoded, applied: Applied) -> Counter[str]:
    """What became of the records of a slice: counts by fate, of the filtered also by rule, and what is unaccounted."""
    outcomes = np.bincount(applied.outcome, minlength=len(Outcome)).tolist()
    counts = Counter({outcome.name.lower(): outcomes[outcome] for outcome in Outcome})
    counts.update(
        events_in=events_in,
        filtered=sum(counts[rule] for rule in RULES),
        dead=len(decoded.dead),
        rerouted=len(decoded.misplaced),
        unknown_ads=applied.unknown_ads,
    )
    counts["unaccounted"] = unaccounted(counts)
    return counts


def unaccounted(counts: Mapping[str, int]) -> int:
    """Records that came in less those with a fate: 0, or something was lost (above 0) or counted twice (below)."""
    return counts.get("events_in", 0) - sum(counts.get(fate, 0) for fate in FATES)
