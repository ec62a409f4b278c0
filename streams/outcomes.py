"""What came of impressions, for whoever watches, trains or evaluates: predicted before it was known, and known now."""

import numpy as np
import numpy.typing as npt

from scoring.catalogue import Catalogue
from scoring.policies import CONTROL_ARM, ENGINE_ARM
from streams.wire import Outcome, encode_json


def encoded(outcomes: npt.NDArray[np.void], catalogue: Catalogue, models: dict[int, str]) -> list[bytes]:
    """``outcomes [N]`` of `scoring.feedback.OUTCOME` as messages; ``models``: names of the attention models."""
    slots = catalogue.slots_of(outcomes["ad"]).tolist()
    return [
        encode_json(
            Outcome(
                event=f"{event:016x}",
                ad_id=catalogue.entries[slot].content.item_id,
                shown_ms=shown_ms,
                known_ms=known_ms,
                predicted=predicted,
                clicked=bool(clicked),
                arm=CONTROL_ARM if control else ENGINE_ARM,
                model=models.get(model, ""),
            )
        )
        for slot, (known_ms, shown_ms, event, _, predicted, clicked, control, _, model) in zip(
            slots, outcomes.tolist(), strict=True
        )
    ]
