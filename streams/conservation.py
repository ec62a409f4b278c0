"""Every incoming record has exactly one fate. The lane rows' totals show it: in = the sum of the fates, always."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from scoring.events import FILTERED, Outcome, Source
from scoring.update import Applied
from streams.decode import Decoded, Record
from streams.topics import CLICKS

FATES = ("applied", "duplicate", "replayed", "late", "filtered", "dead", "rerouted", "without_consent", "erased")
"""What can become of a record. ``filtered`` is the sum of `RULES`."""
RULES = tuple(outcome.name.lower() for outcome in FILTERED)


def account(events_in: int, decoded: Decoded, applied: Applied) -> Counter[str]:
    """Records of a slice by fate; filtered ones also by rule; and how many are unaccounted for."""
    outcomes = np.bincount(applied.outcome, minlength=len(Outcome)).tolist()
    counts = Counter({outcome.name.lower(): outcomes[outcome] for outcome in Outcome})
    counts.update(
        events_in=events_in,
        filtered=sum(counts[rule] for rule in RULES),
        dead=len(decoded.dead),
        rerouted=len(decoded.misplaced),
        without_consent=len(decoded.strangers),
        erased=decoded.erased,
        unknown_ads=applied.unknown_ads,
    )
    counts["unaccounted"] = unaccounted(counts)
    return counts


def tally(decoded: Decoded, applied: Applied) -> Counter[tuple[Source, str]]:
    """Records of a slice by source and fate: an `Outcome`, ``dead`` or ``rerouted``."""
    kinds = len(Outcome)
    at = decoded.events["source"].astype(np.int64) * kinds + applied.outcome
    counts = np.bincount(at, minlength=len(Source) * kinds).tolist()
    found = Counter(
        {(source, outcome.name.lower()): counts[source * kinds + outcome] for source in Source for outcome in Outcome}
    )
    found.update((_source(record), "dead") for record, *_ in decoded.dead)
    found.update((_source(record), "rerouted") for record in decoded.misplaced)
    return found


def _source(record: Record) -> Source:
    return Source.CLICK if record.topic.endswith(CLICKS) else Source.IMPRESSION


def unaccounted(counts: Mapping[str, int]) -> int:
    """Incoming records minus those with a fate: 0, unless one was lost (above 0) or counted twice (below)."""
    return counts.get("events_in", 0) - sum(counts.get(fate, 0) for fate in FATES)
