"""The topics: one table of their purposes and configs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from scoring.units import DAY_MS, HOUR_MS, MINUTE_MS

CLICKS = "clicks"
AD_IMPRESSIONS = "ad-impressions"
ADS = "ads"
CONTROL = "control"
PLACEMENTS = "placements"
DECISIONS = "decisions"
OUTCOMES = "outcomes"
CHANGELOG = "state-changelog"
DEAD_LETTERS = "dead-letters"
LATE_EVENTS = "late-events"
EXPERIMENT_REPORTS = "experiment-reports"
CAMPAIGN_METRICS = "campaign-metrics"
MODELS = "models"
SHADOW_SCORES = "shadow-scores"
CLICK_LAYERS = "click-layers"
REVIEWS = "reviews"
TONES = "tones"
REVIEW_STATE = "review-state"

LANE_INPUTS = (AD_IMPRESSIONS, CLICKS)
"""What lanes read, in the order of `scoring.events.Source`."""

CLEANUP = "cleanup.policy"
RETENTION = "retention.ms"

TOMBSTONES_KEPT_MS = 7 * DAY_MS
"""``delete.retention.ms`` of the changelog: a snapshot older than that could bring an erased user back."""

ERASED_WITHIN_MS = DAY_MS
"""Compaction must delete an erased user's former rows and placements within a day of the segment's end, and retention
whatever is older by more than a day."""

REQUESTS_KEPT_MS = DAY_MS
"""How long a refusal stays on the topic after a later consent. A lane that was down must still see it: a consent alone
makes it forget nothing."""

COPIES = 3
"""Copies of each partition, if there are as many brokers: with one lost, a write is still in two."""

BATCH_BYTES = 1_048_588
"""Kafka's own default, set explicitly: the lanes' batches (``batch_bytes``) must fit it."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic; ``name`` is without prefix."""

    name: str
    purpose: str
    cleanup: Literal["delete", "compact"]
    lanes: bool
    """Partition p belongs to lane p, so all such topics have the same number of partitions; the others have one."""
    configs: Mapping[str, str] = field(default_factory=dict)
    people: bool = False
    """Whether its keys are users. In other topics a key that looks like a user is an ad or a lane."""

    def partitions(self, lanes: int) -> int:
        return lanes if self.lanes else 1

    def settings(self, replication: int) -> dict[str, str]:
        """Every config of the topic, under Kafka's names."""
        return {
            CLEANUP: self.cleanup,
            # Keep records as the producer compressed them: the broker spends nothing on recompressing.
            "compression.type": "producer",
            "max.message.bytes": str(BATCH_BYTES),
            # With three copies, a write counts when two have it: one node may be away at the write, or be lost later.
            "min.insync.replicas": "2" if replication >= COPIES else "1",
            **self.configs,
        }


def _kept(days: int) -> dict[str, str]:
    # A broker deletes whole segments, by their newest record: one that stays open for a week, as by default, would keep
    # a person's first events for a week longer.
    return {RETENTION: str(days * DAY_MS), "segment.ms": str(ERASED_WITHIN_MS)}


# A week: the longer half-life of interest, and the longest backlog that a restart may replay. Lanes order
# records by the producer's timestamps, not by the broker's clock.
_EVENTS = _kept(7) | {"message.timestamp.type": "CreateTime"}

# Compaction leaves the open segment alone, so segments are closed hourly: that bounds what a recovery reads, and how
# long an erased row stays readable.
_COMPACTED_SOON = {
    "segment.ms": str(HOUR_MS),
    "min.cleanable.dirty.ratio": "0.2",
    "max.compaction.lag.ms": str(ERASED_WITHIN_MS),
}

# What lanes report over and over, and every worker that starts reads of all lanes: in an hour's open segment each key
# stands hundreds of times.
_REPORTS = _COMPACTED_SOON | {"segment.ms": str(10 * MINUTE_MS)}

TABLE: tuple[Topic, ...] = (
    Topic(CLICKS, "what people do, keyed by user", "delete", lanes=True, configs=_EVENTS, people=True),
    Topic(AD_IMPRESSIONS, "what people were shown, keyed by user", "delete", lanes=True, configs=_EVENTS, people=True),
    # One partition: every worker reads the whole catalogue, and reads it in one order.
    Topic(ADS, "the catalogue, keyed by ad", "compact", lanes=False),
    # One partition: everyone sees the same switches in the same order.
    Topic(
        CONTROL,
        "experiments, models, consent, keyed by what they set",
        "compact",
        lanes=False,
        configs=_COMPACTED_SOON
        | {
            "min.compaction.lag.ms": str(REQUESTS_KEPT_MS),
            "max.compaction.lag.ms": str(REQUESTS_KEPT_MS + ERASED_WITHIN_MS),
        },
    ),
    Topic(
        PLACEMENTS,
        "the ranked ads of each user, keyed by user",
        "compact",
        lanes=True,
        configs=_COMPACTED_SOON,
        people=True,
    ),
    # A month, to answer complaints and evaluate policies offline; no longer, since it is the largest topic.
    Topic(DECISIONS, "receipts of placements, keyed by user", "delete", lanes=True, configs=_kept(30), people=True),
    # Kept as long as their events, and small: for training, evaluation and monitoring.
    Topic(OUTCOMES, "whether impressions were clicked, and what was predicted", "delete", lanes=True, configs=_kept(7)),
    Topic(
        CHANGELOG,
        "rows of state, keyed by user, and one row per lane",
        "compact",
        lanes=True,
        configs=_COMPACTED_SOON | {"delete.retention.ms": str(TOMBSTONES_KEPT_MS)},
        people=True,
    ),
    # Kept as long as dead letters: an event too late for the stream is still there for the books.
    Topic(
        LATE_EVENTS,
        "events that came too late, raw, with their origin",
        "delete",
        lanes=True,
        configs=_kept(14) | {"max.message.bytes": str(2 * BATCH_BYTES)},
        people=True,
    ),
    # Twice the record size: an input of the full size and its origin must fit. Two weeks to look at it.
    Topic(
        DEAD_LETTERS,
        "unreadable records, raw, with their origin",
        "delete",
        lanes=True,
        configs=_kept(14) | {"max.message.bytes": str(2 * BATCH_BYTES)},
    ),
    # By lane, since each lane counts its own spend; every worker reads all lanes, to pace budgets by their sum.
    Topic(
        CAMPAIGN_METRICS,
        "what each campaign was shown, owes and earned, keyed by lane, campaign and arm",
        "compact",
        lanes=True,
        configs=_REPORTS,
    ),
    # By lane, since each learns from its own outcomes; every worker reads all lanes, to serve by what all have learned.
    Topic(
        CLICK_LAYERS,
        "what each lane's click layer has learned, keyed by lane and bucket of ads",
        "compact",
        lanes=True,
        configs=_REPORTS,
    ),
    # One partition, read when a model is named: whole files in parts, keyed by their hash.
    Topic(MODELS, "files of models, in parts, keyed by their hash", "compact", lanes=False),
    # Kept as long as the outcomes that they are compared with.
    Topic(SHADOW_SCORES, "a shadow model's scores beside the live model's", "delete", lanes=True, configs=_kept(7)),
    Topic(EXPERIMENT_REPORTS, "the results of each experiment, keyed by experiment", "compact", lanes=False),
    # One partition: one reader learns from all reviews. Kept for a quarter: a reader that begins anew learns from that.
    Topic(REVIEWS, "what people say of items, keyed by ad", "delete", lanes=False, configs=_kept(90)),
    # One partition, read whole by every worker.
    Topic(TONES, "how positive the reviews of an ad or a brand are, keyed by it", "compact", lanes=False),
    # One partition: one reader reads it whole at its start.
    Topic(
        REVIEW_STATE,
        "the state of the reader of reviews, keyed by what each record describes",
        "compact",
        lanes=False,
        configs=_COMPACTED_SOON,
    ),
)


def names(prefix: str = "") -> list[str]:
    """Every topic's full name, in the table's order."""
    return [prefix + topic.name for topic in TABLE]
