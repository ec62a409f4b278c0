"""What travels on the topics: one Struct per message, JSON, ranges checked by the decoder.

Unknown fields pass: producers may run ahead of us. A wrong type, an impossible number or an oversized string raises
`msgspec.ValidationError`: a dead letter. Times are UTC epoch milliseconds, money integer micros of the currency.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Id = Annotated[str, Meta(min_length=1, max_length=64)]
"""An opaque id, at most 64 characters."""
CONTROL = r"[\x00-\x1f\x7f]"
"""What no id that becomes a key may hold (`streams.decode.is_plain`); as a decoder's pattern it costs 3 µs an event."""
PlainId = Annotated[Id, Meta(extra_json_schema={"not": {"pattern": CONTROL}})]
PlacementId = Annotated[str, Meta(min_length=1, max_length=128)]
"""A placement's, with its experiments and arms: of people in ten layers up to 125 characters."""
TimeMs = Annotated[int, Meta(ge=0, le=4_102_444_800_000)]
"""UTC epoch milliseconds, 1970 to 2100."""
Micros = Annotated[int, Meta(ge=0, le=1_000_000_000_000_000)]
"""Millionths of the currency unit, up to a thousand million units."""
Price = Annotated[int, Meta(ge=0, le=1_000_000_000_000)]
"""Millionths, up to a million units: nine million purchases of it fit a user's 64-bit sum."""
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
"""A duration within one day."""
Label = Annotated[str, Meta(max_length=128)]
"""A short word: a brand, a tag, a place in the app; "" where there is none."""
SlotNumber = Annotated[int, Meta(ge=0, le=999)]
"""Place in a ranked list, from 0."""
SealText = Annotated[str, Meta(max_length=16)]
"""A placement slot's ``seal``, as it came; "" where none is sent back."""
Consented = bool | None
"""Whether the person agrees to be remembered: null leaves it to the control topic and the shop's presumption."""
Count = Annotated[int, Meta(ge=0, le=9_223_372_036_854_775_807)]
"""What a lane has counted or summed up, within 64 bits."""
Sum = Annotated[float, Meta(ge=0, le=1e16)]
"""The same in thousandths, as a number of wholes: seconds, or purchases."""
Share = Annotated[float, Meta(ge=0, le=1)]
"""A part of a whole, or a chance."""
Day = Annotated[int, Meta(ge=0, le=47_482)]
"""Days of UTC since the epoch, to 2100."""
TITLE_MAX = 512
"""Characters of an ad's title."""
REVIEW_MAX = 4_096
"""Characters of a review."""
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What the decoding of a record raises that is no message: of JSON nested a thousand deep, for which two kilobytes are
enough, a RecursionError; of what is no UTF-8 a ValueError that is not msgspec's."""
EventKind = Literal["click", "view", "cart", "purchase"]


class Impression(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A person was shown an ad. Topic ``ad-impressions``, key ``user_id``.

    ``price_micros`` and ``seal`` are those of ``placement_id``'s slot: without, or with others, nothing is charged.
    ``surface`` is the place in the app: without it, here and in the click that answers, ads' click rates count neither.
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

    ``impression_time_ms`` is that of the impression that it answers, where it answers one: of this user and ad, in the
    same second, whichever comes first. A click without it shapes interest, and is neither charged nor an outcome of
    what was shown. ``placement_id``, ``price_micros`` and ``seal``: as in `Impression`; both tell them, since of an
    impression and its answer the later one is charged. An ad's ``attention_micros`` are, by ``viewed_s``.
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

    ``bid_micros`` is for a click, a thousand impressions (``cpm``), a purchase (``cpa``) or a second of viewing
    (``attention``); ``attention_micros`` is offered and owed per second of viewing, too, whatever the bid is for.
    ``budget_micros`` is the campaign's for a UTC day, from the record's on: the largest that its ads say, no limit
    where all say null; 0 stops the ad. It is shown from ``start_ms`` until before ``end_ms``, if that is later.
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
    """What somebody says of an item; who, is nobody's business. Topic ``reviews``, key ``ad_id``.

    ``review_id`` is the ad's: the same again is passed over. ``positive``: what stars say, null where there are none.
    """

    review_id: Id
    ad_id: Id
    time_ms: TimeMs
    text: Annotated[str, Meta(max_length=REVIEW_MAX)]
    positive: bool | None = None


class Tone(Struct, frozen=True, kw_only=True):
    """How the reviews of an ad or a brand sound of late (`scoring.sentiment`). Topic ``tones`` (compacted).

    ``tone``: how sure it is that one is good, on average, of the last hundred or so of ``reviews``. ``turned_ms``: of
    the review with which it last turned for the worse, null where it never did. The key: ``of/name``.
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
    """A past item that earned a slot its place, with its share of the attention (0 to 1)."""

    ad_id: str
    weight: float


class Slot(Struct, frozen=True, kw_only=True, gc=False):
    """One ad of a placement. ``propensity``: chance of this ad in this slot, given the slots before it.

    ``price_micros``: what its campaign owes, by the auction, for one event of the kind that it bids for (an ad's
    ``attention_micros`` come on top); ``seal`` proves it, and comes back with it on events. ``ecpm_micros``: expected
    micros of a thousand impressions here, at the offered bid. A slot that the rules leave empty is missing (``slot``).
    ``until_ms``: when its ad ends, where that is before its placement does; from then on it is not to be shown.
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

    ``time_ms`` is the time of the event that caused it. Drop it after ``valid_until_ms``, and a slot of it after the
    slot's ``until_ms``. ``context_only``: made without anything remembered of the person: no consent, no receipt.
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
    """The second ranking of an interleaved placement: its model, temperature and exploration, what the click layer made
    of the model's scores, and its ``pctr``; all as in `Decision`.
    """

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

    Arrays are little-endian bytes. ``row`` is the user's state as it was scored; ``candidates`` the 64-bit ids
    that were scored, ``revisions`` the hashes of their content; ``weights`` and ``lifts`` (float64, float32) what the
    online click layer made of the model's scores, ``examined`` (float64) how likely it knew each slot to be looked at,
    by the first, empty without such a layer; ``pctr`` and ``bids_micros`` (float32, int64) what ranked them, the bids
    as offered after pacing. ``offers`` (float32, four of each candidate: multiplier, quality, purchases per click,
    seconds of viewing) and ``worth`` (float32, micros of an impression, what ranked them) are empty where all offer the
    whole bid for a click, and are worth it times their pCTR.
    ``fates`` (uint8) tells what became of each candidate: 0 outbid, 1 blocked, 2 capped, 3 budget spent, 4 below the
    reserve, 5 kept apart from one that won, and 100 + slot of those that won. ``chosen`` are places in these arrays,
    slot by slot, without those that stayed empty. ``allocation``: the chance with which the user came to the arms of
    experiments that decided, 1 outside of them. ``other``: the ranking that took turns with the first, which all else
    is of; propensities are those of the placement as it came about, over the coins too. ``explore``: by what slots were
    drawn, "plackett-luce", "thompson" or "linucb". Of the latter two ``evidence`` (float32, clicks that each lift rests
    on) is what they explored; ``worth`` has what LinUCB added, and ``spreads`` (float32) are the standard deviations of
    the logarithms of worth that Thompson sampling drew by. Elsewhere they are empty. ``rates`` (float16, four of each
    candidate) tell how often the ad and its brand had been clicked, as the model was told; empty where nothing had been
    shown.
    """

    placement_id: str
    user_id: str
    time_ms: int
    lane: int
    offsets: tuple[int, int]
    versions: dict[str, str]
    arm: str
    seed: int
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
    """What came of an impression, once it is known. Topic ``outcomes``, no key: it names no person.

    ``event``: the 64-bit XXH3 of the impression's ``event_id``, in hex. ``known_ms``: the newest event time when a
    click came or the window ended; it ends where that is ``ends_ms`` (0: told by a former version). A click is told
    before: all that was shown in its lane as early is known once a ``known_ms`` of its partition is as late.
    ``predicted``: the chance of a click as the online click layer saw it when the impression was shown, before anything
    was learnt from it; ``attention``: the same by the attention model ``model`` alone. ``shadow``: the model that
    scored it beside, if there was one, and ``shadow_predicted`` what that one would have said of it then.
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
    """What a campaign was shown, owes and earned in a period.

    ``spent_micros``: what its events charge; ``unpriced``: events that would have been charged and brought no price of
    their placement. ``purchases`` and ``value_micros`` are owed to its clicks by last touch, ``spread_*`` by position
    (40 % to the first click, 40 % to the last) or, where the rules say so, by time (the later, the more) or as it was
    learned from purchases and from visits that came to none.
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


class CampaignMetrics(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one lane knows of a campaign and arm. Topic ``campaign-metrics`` (compacted), key lane/campaign/arm.

    A campaign's figures are the sum over lanes and arms. ``arm`` is what ends the placements' ids, as ``1-0`` of
    experiment 1, arm 0; "" outside of experiments. ``day`` counts days of UTC since the epoch; ``today`` is of that
    day, ``before`` of the last day before it that had any (``before_day``), ``total`` since ever: whoever wants a
    history keeps the last record of each day. ``spent_micros`` of a day, summed over lanes, is billed up to that day's
    ``budget_micros`` (null: no limit; ``yesterday_budget_micros``: of the day before, if known), or to the largest
    ``billed_micros`` of the day: what was billed by then, as far as the lane's worker knew. ``level``: the long-term
    level of the bid's multiplier; 0 without a budget.
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
    budget_micros: Micros | None = None
    yesterday_budget_micros: Micros | UnsetType | None = UNSET
    billed_micros: Count = 0
    level: Share = 0.0


class ShadowSlot(Struct, frozen=True, kw_only=True):
    """An ad of a placement: its chance of a click in the first slot, by the model that decided and by the shadow."""

    ad_id: str
    pctr: float
    shadow_pctr: float
    difference: float


class ShadowScore(Struct, frozen=True, kw_only=True):
    """What a shadow model says beside a decision. Topic ``shadow-scores``, no key: it names no person.

    ``decision``: the 64-bit XXH3 of the ``placement_id``, in hex. ``slots``: the ads that were placed, first to last.
    ``candidates``: how many were scored, with the mean and the largest absolute difference of the two models' chances.
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
    """Where a lane stands: written last in every slice to ``state-changelog``, under the key `LANE_KEY`.

    ``next_offsets`` of impressions and clicks, in this order everywhere; ``order`` is one bit per record of
    the slice in the order taken (0 impression, 1 click, packed big-endian), which starts at ``from_offsets``.
    ``watermarks_ms`` are the running maxima of record time per topic; ``topic_ids`` tell a topic from its
    namesake made anew, ``lanes`` from itself with more partitions. ``totals`` count what became of every record
    since the lane's first (`streams.conservation`): in = applied + duplicate + replayed + late + filtered + dead +
    rerouted + without_consent + erased, always; ``unaccounted`` is the difference. ``flood_score``: see
    `scoring.anomaly`. ``ads_next``: of lane 0, the offset on ``ads`` (``ads_id``) up to which refused ads have letters.
    ``control_next``: people's requests on ``control`` (``control_id``) before it were settled before the slice's first.
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
"""The changelog's keys that are no user's begin with it; no user id holds a NUL, the decoder of events sees to that."""
LANE_KEY = RESERVED + b"lane"
"""Key of the lane row."""
encode_json = msgspec.json.Encoder().encode
