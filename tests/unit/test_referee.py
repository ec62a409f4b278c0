"""The referee against what topics really hold: what is malformed, told twice, read late, begun anew or taken back."""

import pytest

from scoring.policies import arms_of
from streams.control_wire import ExperimentSetting
from streams.experiments import start
from streams.referee import Referee
from streams.wire import encode_json
from tests.unit.test_duels import draft as duel_draft
from tests.unit.test_experiments import row, running

SHOWN = {"event_id": "e", "user_id": "u", "ad_id": "a", "time_ms": 10, "slot": 0}


@pytest.mark.parametrize(
    "fields",
    [
        {"placement_id": "0.1--2"},
        {"placement_id": "0.1-3"},
        {"placement_id": "0.1-ffffffffffffffffffff"},
        {"time_ms": 2**63},
        {"time_ms": -1},
        {"slot": -1},
        {"slot": 10**12},
        {"user_id": ""},
        {"event_id": None},
    ],
)
@pytest.mark.parametrize(("setting", "arm"), [(running(), "0"), (start(duel_draft(), 1.0, 1), "2")])
def test_an_impression_that_no_shop_means_exposes_nobody_and_ends_no_referee(
    setting: ExperimentSetting, arm: str, fields: dict[str, object]
) -> None:
    referee = Referee()
    referee.follow(setting)
    referee.take_impressions([encode_json(SHOWN | {"placement_id": f"0.1-{arm}"} | fields)])
    referee.take_rows([b"u"], row(20, 1, 0))
    (watched,) = referee.look()
    assert watched.last is not None
    assert watched.last.users.sum() == 0
    assert watched.duel is None or not watched.duel.shown.any()


def test_a_placement_whose_arm_is_negative_names_none() -> None:
    assert arms_of("0.1--2") == []
