"""Scores to messages: the placement that the ad server reads, and the receipt that lets anyone check it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scoring.candidates import Shares
from scoring.engine import ARMS, Engine, Policy, Scored
from scoring.ids import MISSING, id64
from scoring.inputs import SPEC_HASH
from scoring.rows import LAYOUT_VERSION, Rows
from streams.wire import Attended, Decision, Placement, Slot, encode_json

REASONS_MAX = 3
"""Past items named per slot: those with the most attention."""
REASON_WEIGHT_MIN = 0.02
"""An item with no more attention than one of fifty looked at alike (1/50) explains nothing."""


@dataclass(frozen=True, slots=True)
class Published:
    """A user's key with the encoded placement and decision."""

    user: bytes
    placement: bytes
    decision: bytes


def placement_id(lane: int, user: bytes, offsets: tuple[int, int]) -> str:
    """The id of the placement that follows from the user's events up to ``offsets``: the same whenever made."""
    return f"{lane:x}-{offsets[0] + 1:x}-{offsets[1] + 1:x}-{id64(user):016x}"


def place(engine: Engine, lane: int, users: list[bytes], rows: Rows) -> list[Published]:
    """Placements and receipts for ``users`` with their ``rows [B]`` (copies)."""
    offsets: list[tuple[int, int]] = [(first, second) for first, second in rows["offset"].tolist()]
    ids = [placement_id(lane, user, pair) for user, pair in zip(users, offsets, strict=True)]
    users64 = np.array([id64(user) for user in users], dtype=np.uint64)
    seeds = np.array([id64(name) for name in ids], dtype=np.uint64)
    published: list[Published] = []
    for scored in engine.place(rows, users64, seeds):
        for at in range(len(scored.seeds)):
            place_ = len(published)
            placement = placement_of(engine, scored, at, ids[place_], users[place_])
            encoded = encode_json(placement)
            decision = decision_of(engine, scored, at, placement, encoded, rows[place_], lane)
            published.append(Published(users[place_], encoded, encode_json(decision)))
    return published


def placement_of(engine: Engine, scored: Scored, at: int, name: str, user: bytes) -> Placement:
    """The placement of person ``at`` of a scored batch."""
    catalogue, ranked = engine.catalogue, scored.ranked
    chosen = ranked.chosen[at]
    candidates = scored.candidates[at, chosen].tolist()
    columns = zip(
        candidates,
        scored.pctr[at, chosen].tolist(),
        ranked.value[at, chosen].tolist(),
        scored.bids_micros[at, chosen].tolist(),
        ranked.propensity[at].tolist(),
        reasons_of(engine, scored, at),
        strict=True,
    )
    slots = tuple(
        Slot(
            slot=slot,
            ad_id=(entry := catalogue.entries[candidate]).content.item_id,
            campaign_id=entry.campaign_id,
            pctr=round(pctr, 6),
            ecpm_micros=round(1000 * value),
            price_micros=bid,
            propensity=round(propensity, 9),
            attention=attention,
        )
        for slot, (candidate, pctr, value, bid, propensity, attention) in enumerate(columns)
    )
    now_ms = int(scored.now_ms[at])
    return Placement(
        placement_id=name,
        user_id=user.decode(),
        time_ms=now_ms,
        valid_until_ms=now_ms + engine.policy.placement_ttl_ms,
        arm=ARMS[int(scored.control[at])],
        model=engine.model.version,
        slots=slots,
    )


def reasons_of(engine: Engine, scored: Scored, at: int) -> list[tuple[Attended, ...]]:
    """Per slot, the past items that earned it its ad, most attention first; an item's appearances are added up."""
    history = scored.history_slots[at]
    items, place_ = np.unique(history, return_inverse=True)
    weights = scored.attention[at] @ (place_[:, None] == np.arange(len(items))).astype(np.float32)  # [L, items]
    weights[:, items == MISSING] = 0
    best = np.argsort(-weights, axis=1, kind="stable")[:, :REASONS_MAX]
    names = [engine.catalogue.entries[item].content.item_id if item != MISSING else "" for item in items.tolist()]
    return [
        tuple(
            Attended(ad_id=names[item], weight=round(weight, 4))
            for item, weight in zip(row, of_slot, strict=True)
            if weight > REASON_WEIGHT_MIN
        )
        for row, of_slot in zip(best.tolist(), np.take_along_axis(weights, best, axis=1).tolist(), strict=True)
    ]


def decision_of(
    engine: Engine, scored: Scored, at: int, placement: Placement, encoded: bytes, row: Rows, lane: int
) -> Decision:
    """The receipt of person ``at``: versions, inputs, draws and the placement's own bytes."""
    candidates = scored.candidates[at]
    first, second = row["offset"].tolist()
    return Decision(
        placement_id=placement.placement_id,
        user_id=placement.user_id,
        time_ms=placement.time_ms,
        lane=lane,
        offsets=(first, second),
        versions={"model": engine.model.version, "specification": SPEC_HASH, "layout": str(LAYOUT_VERSION)},
        arm=placement.arm,
        seed=int(scored.seeds[at]),
        policy=policy_record(engine.policy),
        row=row.tobytes(),
        candidates=engine.catalogue.ad[candidates].tobytes(),
        revisions=engine.catalogue.revision[candidates].tobytes(),
        pctr=scored.pctr[at].tobytes(),
        bids_micros=scored.bids_micros[at].tobytes(),
        chosen=tuple(scored.ranked.chosen[at].tolist()),
        propensities=tuple(scored.ranked.propensity[at].tolist()),
        placement=encoded,
    )


def policy_record(policy: Policy) -> dict[str, float]:
    """The numbers that a policy consists of, by the names of their settings."""
    return {
        "slots": policy.slots,
        "candidates": policy.shares.count,
        "fresh_share": policy.shares.fresh,
        "random_share": policy.shares.random,
        "temperature": policy.temperature,
        "control_share": policy.control_share,
        "placement_ttl_ms": policy.placement_ttl_ms,
    }


def policy_of(record: Mapping[str, float]) -> Policy:
    """The policy that a receipt records."""
    return Policy(
        slots=int(record["slots"]),
        shares=Shares(int(record["candidates"]), record["fresh_share"], record["random_share"]),
        temperature=record["temperature"],
        control_share=record["control_share"],
        placement_ttl_ms=int(record["placement_ttl_ms"]),
    )
