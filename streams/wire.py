"""What travels on the topics: one Struct per message, JSON; the decoder checks ranges.

Unknown fields pass: producers may run ahead of us. A wrong type, an impossible number or an oversized string raises
`msgspec.ValidationError`: a dead letter. Times are UTC epoch milliseconds, money is integer micros of the currency.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Id = Annotated[str, Meta(min_length=1, max_length=64)]
"""An opaque id, at most 64 characters."""
CONTROL = r"[\x00-\x1f\x7f]"
"""Not allowed in an id that becomes a key: `streams.decode.is_plain` checks; the decoder would take 3 µs per event."""
PlainId = Annotated[Id, Meta(extra_json_schema={"not": {"pattern": CONTROL}})]
PlacementId = Annotated[str, Meta(min_length=1, max_length=128)]
"""A placement's id, with its experiments and arms: up to 125 characters for a person in ten layers."""
TimeMs = Annotated[int, Meta(ge=0, le=4_102_444_800_000)]
"""UTC epoch milliseconds, 1970 to 2100."""
Micros = Annotated[int, Meta(ge=0, le=1_000_000_000_000_000)]
"""Millionths of the currency unit, up to a thousand million units."""
Price = Annotated[int, Meta(ge=0, le=1_000_000_000_000)]
"""Millionths, up to a million units: nine million purchases at that price fit a user's 64-bit sum."""
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
"""A duration within one day."""
Label = Annotated[str, Meta(max_length=128)]
"""A short word: a brand, a tag, a place in the app; "" where there is none."""
SlotNumber = Annotated[int, Meta(ge=0, le=999)]
"""Place in a ranked list, from 0."""
SealText = Annotated[str, Meta(max_length=16)]
"""The ``seal`` of a placement's slot, sent back unchanged; "" where there is none."""
Consented = bool | None
"""Whether the person agrees to be remembered; null: the control topic decides, else the shop's default."""
Count = Annotated[int, Meta(ge=0, le=9_223_372_036_854_775_807)]
"""A lane's count or sum, within 64 bits."""
Sum = Annotated[float, Meta(ge=0, le=1e16)]
"""A lane's sum in whole units (seconds, purchases), exact to thousandths."""
Share = Annotated[float, Meta(ge=0, le=1)]
"""A fraction or a probability."""
Day = Annotated[int, Meta(ge=0, le=47_482)]
"""UTC days since the epoch, to 2100."""
TITLE_MAX = 512
"""Characters of an ad's title."""
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding raises for no message: RecursionError for JSON nested a thousand deep, ValueError for no UTF-8."""
EventKind = Literal["click", "view", "cart", "purchase"]


class Impression(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A person was shown an ad. Topic ``ad-impressions``, key ``user_id``.

    ``price_micros`` and ``seal``: copied from the slot of ``placement_id``; if missing or different, nothing is
    charged. ``surface``: the place in the app. Ads' click rates count only impressions and clicks that have it.
    """

    event_id: Id
    user_id: PlainId
    ad_id: Id
    time_ms: TimeMs
    placement_id: PlacementId | None = None
    slot: SlotNumber | None = None
    price_micros: Price = 0
    surface: Label = ""
    consent: Consented = None
    seal: SealText = ""


class Click(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What a person did with an item. Topic ``clicks``, key ``user_id``.

    ``impression_time_ms``: time of the impression that the click answers: same user, ad and second; either may arrive
    first. Without it a click shapes interest, but is not charged and is no impression's outcome. ``placement_id``,
    ``price_micros`` and ``seal``: as in `Impression`; both events carry them, since whichever arrives later is charged.
    ``viewed_s``: seconds of viewing until ``time_ms``; charged are at most 60, and only those since the impression.
    """

    event_id: Id
    user_id: PlainId
    ad_id: Id
    time_ms: TimeMs
    kind: EventKind = "click"
    viewed_s: Seconds | None = None
    value_micros: Price = 0
    impression_time_ms: TimeMs | None = None
    placement_id: PlacementId | None = None
    surface: Label = ""
    consent: Consented = None
    price_micros: Price = 0
    seal: SealText = ""


class Ad(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An item with a campaign behind it. Topic ``ads`` (compacted), key ``ad_id``; a tombstone withdraws it.

    ``bid_micros`` pays for a click (``cpc``), a thousand impressions (``cpm``), a purchase (``cpa``) or a second of
    viewing (``attention``). ``attention_micros`` is offered and owed per second of viewing on top, for every bid type.
    ``budget_micros``: the campaign's budget per UTC day, from the record's day on. The largest of its ads' counts, of
    ads that ended before the day only where no other has one. If all are null, there is no limit; 0 stops the ad. It is
    shown from ``start_ms`` (without: not explored as new) to just before ``end_ms``, the hours budgets are planned for.
    """

    ad_id: PlainId
    campaign_id: PlainId
    advertiser_id: PlainId
    bid_micros: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    bid_type: Literal["cpc", "cpm", "cpa", "attention"] = "cpc"
    attention_micros: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    budget_micros: Micros | None = None
    category: Annotated[str, Meta(max_length=256)] = ""
    brand: Label = ""
    price_micros: Price = 0
    tags: Annotated[tuple[Label, ...], Meta(max_length=32)] = ()
    title: Annotated[str, Meta(max_length=TITLE_MAX)] = ""
    status: Literal["active", "paused", "ended"] = "active"
    start_ms: TimeMs = 0
    end_ms: TimeMs | None = None


class Review(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """An anonymous review of an item. Topic ``reviews``, key ``ad_id``.

    ``review_id``: unique within the ad; a repeat is skipped. ``positive``: what stars say, null where there are none.
    """

    review_id: Id
    ad_id: Id
    time_ms: TimeMs
    text: Annotated[str, Meta(max_length=4_096)]
    positive: bool | None = None


class Tone(Struct, frozen=True, kw_only=True):
    """How positive recent reviews of an ad or a brand are (`scoring.sentiment`). Topic ``tones`` (compacted).

    Key: ``of/name``. ``tone``: mean probability that a review is good, over about the last hundred; ``reviews``: how
    many there were. ``turned_ms``: time of the review at which the tone last turned for the worse, null if never.
    """

    of: Literal["ad", "brand"]
    name: Label
    reviews: Count
    tone: Share
    turned_ms: TimeMs | None = None
    time_ms: TimeMs

    @property
    def key(self) -> bytes:
        """The record's key."""
        return f"{self.of}/{self.name}".encode()


class Attended(Struct, frozen=True, kw_only=True, gc=False):
    """A past item that helped an ad win its slot, with its attention weight (0 to 1)."""

    ad_id: str
    weight: float


class Slot(Struct, frozen=True, kw_only=True, gc=False):
    """One ad of a placement. ``propensity``: probability of this ad in this slot, given the slots before it.

    ``price_micros``: the auction's price for one event of the kind that the campaign bids for (the ad's
    ``attention_micros`` come on top). ``seal`` proves the price; events send both back. ``ecpm_micros``: expected
    micros per thousand impressions here, at the offered bid. ``slot`` numbers have gaps where the rules leave a slot
    empty. ``until_ms``: when the ad ends, if before the placement does; do not show the ad from then on.
    """

    slot: int
    ad_id: str
    campaign_id: str
    pctr: float
    ecpm_micros: int
    price_micros: int
    propensity: float
    attention: tuple[Attended, ...] = ()
    seal: str = ""
    until_ms: int | UnsetType = UNSET


class Placement(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The ranked ads for one person now. Topic ``placements`` (compacted), key ``user_id``.

    ``time_ms``: time of the event that caused it. Drop the placement after ``valid_until_ms``, and each slot from its
    ``until_ms`` on. ``context_only``: without consent, from nothing remembered of the person; it leaves no receipt.
    """

    placement_id: str
    user_id: str
    time_ms: int
    valid_until_ms: int
    arm: str
    model: str
    slots: tuple[Slot, ...]
    context_only: bool = False


class Interleaved(Struct, frozen=True, kw_only=True):
    """The second ranking of an interleaved placement; every field is as in `Decision`."""

    model: str
    temperature: float
    weights: bytes
    lifts: bytes
    pctr: bytes
    explore: str = "plackett-luce"
    ucb_alpha: float = 0.0
    evidence: bytes = b""


class Decision(Struct, frozen=True, kw_only=True):
    """The receipt of a placement: all that is needed to compute it again. Topic ``decisions``, key ``user_id``.

    Arrays are little-endian bytes. ``row``: the user's state as scored; ``candidates``: the 64-bit ids scored;
    ``revisions``: hashes of their content. ``weights``, ``lifts`` (float64, float32): the click layer's corrections of
    the model's scores. ``examined`` (float64): probability that each slot is looked at, relative to the first; empty
    without a click layer. ``pctr``, ``bids_micros`` (float32, int64): what ranked the candidates; bids after pacing.
    ``offers`` (float32, four per candidate: multiplier, quality, purchases per click, seconds of viewing): empty where
    all offer the whole bid per click. ``worth`` (float32, micros per impression): what ranked the candidates, LinUCB's
    bonus included; empty where it is bid times pCTR for all. ``fates`` (uint8), one per candidate: 0 outbid, 1 blocked,
    2 capped, 3 budget spent, 4 below the reserve, 5 kept apart from a winner, 100 + slot for a winner. Ads of fates 1,
    3 and 4 are candidates only where too few others are. ``chosen``: the winners' indices in these arrays, slot by
    slot, empty slots left out. ``allocation``: probability that the user was assigned to the arms that decided, 1
    outside experiments. ``other``: the second ranking, where two were interleaved; what ranked is otherwise the
    first's. ``propensities`` are those of the final placement, coin tosses included. ``explore``: how slots were drawn,
    "plackett-luce", "thompson" or "linucb"; for the latter two, ``evidence`` (float32): clicks behind each lift; for
    Thompson sampling, ``spreads`` (float32): its standard deviations of log worth; else both are empty. ``rates``
    (float16, four per candidate): the model's click statistics of ad and brand; empty where nothing was shown.
    """

    placement_id: str
    user_id: str
    time_ms: int
    lane: int
    offsets: tuple[int, int]
    versions: dict[str, str]
    arm: str
    seed: Annotated[int, Meta(extra_json_schema={"format": "uint64"})]
    policy: dict[str, float]
    row: bytes
    candidates: bytes
    revisions: bytes
    weights: bytes
    lifts: bytes
    pctr: bytes
    bids_micros: bytes
    chosen: tuple[int, ...]
    propensities: tuple[float, ...]
    placement: bytes
    offers: bytes = b""
    worth: bytes = b""
    fates: bytes = b""
    examined: bytes = b""
    allocation: float = 1.0
    other: Interleaved | None = None
    explore: str = "plackett-luce"
    evidence: bytes = b""
    spreads: bytes = b""
    rates: bytes = b""


class Outcome(Struct, frozen=True, kw_only=True):
    """Whether an impression was clicked, once known. Topic ``outcomes``, no key: it names no person.

    ``event``: the 64-bit XXH3 of the impression's ``event_id``, in hex. ``known_ms``: the lane's newest event time when
    a click came or the window ended. The window ends when that time reaches ``ends_ms`` (0: from a former version); a
    click is reported before. Once a ``known_ms`` in the partition reaches ``ends_ms``, the outcomes of all impressions
    shown as early in the lane are known. ``predicted``: the click layer's probability of a click when the impression
    was shown, before learning from it; ``attention``: the same by the attention model ``model`` alone. ``shadow``: the
    shadow model that scored it too; ``shadow_predicted``: its probability. ``arm``: control or engine, all others.
    """

    event: str
    ad_id: str
    shown_ms: TimeMs
    known_ms: TimeMs
    predicted: Share
    attention: Share
    clicked: bool
    arm: str
    model: str
    shadow: str = ""
    shadow_predicted: Share = 0.0
    ends_ms: TimeMs = 0


class Figures(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A campaign's impressions, costs and results in a period.

    ``spent_micros``: what its events charge; ``unpriced``: events that would be charged, but carry no price of their
    placement. ``purchases`` and ``value_micros`` go by last touch; ``spread_*`` by position (40 % to the clicked
    ad that was shown first, 40 % to the last) or, where the rules say so, by time (later gets more) or as learned.
    ``sold``: purchases that answer an impression, one of each, as ``cpa`` pays for them; former versions leave it out.
    """

    impressions: Count = 0
    clicks: Count = 0
    viewed_s: Sum = 0.0
    spent_micros: Count = 0
    unpriced: Count = 0
    purchases: Sum = 0.0
    value_micros: Count = 0
    spread_purchases: Sum = 0.0
    spread_value_micros: Count = 0
    sold: Count | UnsetType = UNSET


class CampaignMetrics(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One lane's figures of a campaign and arm. Topic ``campaign-metrics`` (compacted), key lane/campaign/arm.

    Sums over lanes and arms are the campaign's. ``arm``: suffix of placement ids, as ``1-0`` for arm 0 of experiment 1,
    or "". ``today``: figures of ``day``; ``before``: of the last earlier day with any (``before_day``); ``total``: of
    all time, until 400 days after the last event. A day's ``spent_micros`` are billed up to the larger of the day's
    ``budget_micros`` (null: no limit; ``yesterday_budget_micros``: of the day before, if known) and its largest
    ``billed_micros``: what was billed by then, as the lane's worker knew (``before_billed_micros``: of ``before_day``).
    ``level``: long-term bid multiplier; 0: no budget. ``starts_ms``: when its first ad begins (null: unknown); its last
    ends at ``ends_ms`` (null: never). ``anew_ms``: when the day's budget was planned anew, ``anew_micros`` by then.
    """

    lane: int
    campaign_id: str
    time_ms: int
    day: Day
    today: Figures
    total: Figures
    arm: str = ""
    before_day: Day = 0
    before: Figures | None = None
    before_billed_micros: Count = 0
    budget_micros: Micros | None = None
    yesterday_budget_micros: Micros | UnsetType | None = UNSET
    billed_micros: Count = 0
    level: Share = 0.0
    starts_ms: TimeMs | None = None
    ends_ms: TimeMs | None = None
    anew_ms: TimeMs | None = None
    anew_micros: Count = 0


class ShadowSlot(Struct, frozen=True, kw_only=True):
    """An ad of a placement, and its pCTR in the first slot by the deciding model and by the shadow model."""

    ad_id: str
    pctr: float
    shadow_pctr: float
    difference: float


class ShadowScore(Struct, frozen=True, kw_only=True):
    """A shadow model's scores for a decision. Topic ``shadow-scores``, no key: it names no person.

    ``decision``: the 64-bit XXH3 of the ``placement_id``, in hex. ``slots``: the ads that were placed, first to last.
    ``candidates``: how many were scored; the differences are the mean and largest absolute ones of the two pCTRs.
    """

    decision: str
    time_ms: int
    model: str
    shadow: str
    slots: tuple[ShadowSlot, ...]
    candidates: int
    mean_difference: float
    largest_difference: float


class LaneRow(Struct, frozen=True, kw_only=True):
    """A lane's position and totals, the last record of every slice on ``state-changelog``, key `LANE_KEY`.

    Pairs are always impressions, then clicks. The slice starts at ``from_offsets`` and ends before ``next_offsets``;
    ``order``: one bit per record in the order taken (0 impression, 1 click, packed big-endian). ``watermarks_ms``: the
    running maxima of record time per topic. ``topic_ids`` and ``lanes`` reveal that a topic was made anew under its
    name, or got more partitions. ``totals`` count the fates of all records since the lane's first
    (`streams.conservation`): in = applied + duplicate + replayed + late + filtered + dead + rerouted +
    without_consent + erased, always; ``unaccounted`` is the difference. ``flood_score``: see `scoring.anomaly`.
    ``ads_next`` (lane 0): offset on ``ads`` (``ads_id``) before which refused ads have dead letters. ``control_next``:
    offset on ``control`` (``control_id``); people's requests before it were settled before the slice's first record.
    """

    version: int
    from_offsets: tuple[int, int]
    next_offsets: tuple[int, int]
    records: int
    order: bytes
    watermarks_ms: tuple[int, int]
    stream_ms: int
    topic_ids: tuple[str, str]
    lanes: int
    totals: dict[str, int]
    flood_score: float = 0.0
    ads_next: int = 0
    control_id: str = ""
    control_next: int = 0
    ads_id: str = ""


RESERVED = b"\x00"
"""First byte of changelog keys that are not user ids; the decoder of events lets no user id hold a NUL."""
LANE_KEY = RESERVED + b"lane"
"""Key of the lane row."""
encode_json = msgspec.json.Encoder().encode
