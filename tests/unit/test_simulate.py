"""The simulated worlds: their figures, that each detector finds what it is for, and what the commands make of them."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from scoring.catalogue import Catalogue
from scoring.market import Asked, Decided, Market, Terms
from scoring.units import HOUR_MS
from streams.cli import app
from streams.simulate import diversity, experiments, market
from streams.simulate.market import Shop, cap_violations


@pytest.fixture
def quiet_market(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fortieth of the visits, by sixty people: most budgets are small change.

    A price is two decisions made again, for each of ten slots. A fault in one price of 40 is missed in 600 of them once
    in 4 million times.
    """
    monkeypatch.setattr(market, "VISITS_PER_DAY", 1_000)
    monkeypatch.setattr(market, "USERS", 60)
    monkeypatch.setattr(market, "PRICES_CHECKED", 60)


@pytest.mark.usefixtures("quiet_market")
def test_a_day_of_the_market_meets_budgets_keeps_caps_and_charges_the_least_prices() -> None:
    hours = []
    found = market.run(2, 1, lambda: hours.append(1))
    assert len(hours) == 24
    assert 7_000 < found["impressions"] < 8_000
    assert found["prices_checked"] == 60
    assert found["campaign_days_that_could_spend"] >= 3
    assert found["coarse_campaign_days"] > 50
    assert found["spend_error"] <= 0.01
    assert found["coarse_error_events"] < 6
    assert found["off_traffic_first_day"] < 0.1
    assert found["cap_violations"] == found["price_mismatches"] == 0


@pytest.mark.usefixtures("quiet_market")
def test_the_market_is_the_same_however_many_prices_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def impressions(checked: int) -> list[list[int]]:
        monkeypatch.setattr(market, "PRICES_CHECKED", checked)
        world = market.World(Shop.of(1), np.random.default_rng(1), np.full(market.CAMPAIGNS, 1_000_000))
        for minute in range(720, 780):
            world.minute(minute)
        assert world.checked == checked
        return np.concatenate(world.impressions).tolist()

    assert impressions(0) == impressions(3) != []


@pytest.mark.parametrize(("events", "exit_code"), [(3.0, 0), (3.1, 1)])
def test_the_market_fails_where_small_budgets_are_missed_by_more_than_the_luck_of_some_events(
    events: float, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"spend_error": 0.0, "unbilled_share": 0.0, "cap_violations": 0, "price_mismatches": 0}
    monkeypatch.setattr(market, "run", lambda *_: found | {"coarse_error_events": events})
    assert CliRunner().invoke(app, ["simulate", "market"]).exit_code == exit_code


@pytest.mark.usefixtures("quiet_market")
def test_a_market_without_pacing_or_caps_and_with_prices_off_by_one_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Careless(Market):
        def __init__(self, terms: Terms) -> None:
            super().__init__(replace(terms, caps=()))

        def decide(self, catalogue: Catalogue, asked: Asked, slots: int, other: Asked | None = None) -> Decided:
            made = super().decide(catalogue, asked, slots, other)
            return replace(made, prices_micros=made.prices_micros + 1)

    monkeypatch.setattr(market, "Market", Careless)
    monkeypatch.setattr(market.Worker, "pace", lambda *_: None)
    found = market.run(1, 1)
    assert found["price_mismatches"] > found["prices_checked"] == 60
    assert found["cap_violations"] > 900
    assert found["spend_error"] > 0.1
    assert found["spend_error_median"] > 0.1
    assert found["coarse_error_events"] > 20
    assert found["unbilled_share"] > 0.05
    assert found["off_traffic_first_day"] > 0.15


def test_an_impression_beyond_a_cap_is_found_in_the_log() -> None:
    world = Shop.of(1)
    log = [(7, 3, 0), (7, 3, 10), (7, 3, HOUR_MS + 50), (8, 3, 20)]
    assert cap_violations(np.array(log), world) == 0
    assert cap_violations(np.array([*log, (7, 3, 20)]), world) == 1
    assert cap_violations(np.empty((0, 3), dtype=np.int64), world) == 0


def test_much_variety_costs_much_and_fairness_takes_its_time() -> None:
    found = diversity.run(1, 310, Terms(diversity=3.0))
    assert found["placements"] == 320  # whole batches, and no fewer than were asked for
    assert found["ndcg_off"] == pytest.approx(0.960, abs=0.01)
    assert found["ndcg_cost"] == pytest.approx(0.171, abs=0.02)
    assert found["intra_list_distance_off"] == pytest.approx(0.613, abs=0.01)
    assert found["intra_list_distance_on"] == pytest.approx(0.815, abs=0.02)
    assert found["fairness_ratio_off"] == pytest.approx(0.774, abs=0.03)
    assert found["fairness_ratio"] == pytest.approx(0.702, abs=0.03)
    assert found["fairness_ndcg_cost"] == pytest.approx(0.053, abs=0.01)


KEPT = {
    "ndcg_cost": 0.003, "us_per_placement": 60.0, "intra_list_distance_off": 0.61, "intra_list_distance_on": 0.62,
    "fairness_ratio": 0.99, "method": "mmr",
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "found", "exit_code"),
    [
        ("", {}, 0),
        ("", {"us_per_placement": 10_000.0}, 0),  # a busy machine breaks no promise
        ("", {"ndcg_cost": 0.006}, 1),
        ("", {"fairness_ratio": 0.94}, 1),
        ("", {"intra_list_distance_on": 0.61}, 1),
        ("--strength 0", {"intra_list_distance_on": 0.61}, 0),  # none was asked for
    ],
)
def test_the_command_fails_of_broken_promises_alone(
    options: str, found: dict[str, Any], exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diversity, "run", lambda *_: KEPT | found)
    told = CliRunner().invoke(app, ["simulate", "diversity", *options.split()])
    assert told.exit_code == exit_code, told.output
    assert "mmr" in told.stdout
    assert "us per placement" in told.stdout


@pytest.mark.parametrize("options", ["", "--json"])
def test_a_split_that_is_never_found_is_a_promise_broken_and_told_as_that(
    options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {
        "looks": 2,
        "false_positive_rate": 0.0,
        "coverage": 1.0,
        "cuped_variance_cut": 0.5,
        "cuped_raised": 0,
    }
    found |= {"srm_detected": False, "srm_users": None, "bandit_false_positive_rate": 0.0, "bandit_coverage": 1.0}
    for name in ("one", "bandit", "bandits", "users_until_split_found"):
        monkeypatch.setattr(experiments, name, lambda *_: {})
    monkeypatch.setattr(experiments, "summary", lambda *_: found)
    told = CliRunner().invoke(app, ["simulate", "aa", "--experiments", "10", *options.split()])
    assert told.exit_code == 1
    assert isinstance(told.exception, SystemExit)
    assert ("null" if options else "none") in told.stdout


@pytest.mark.parametrize("wrong", ["market --days 1", "diversity --placements 7999"])
def test_a_world_too_small_to_show_what_it_is_for_is_refused(wrong: str) -> None:
    told = CliRunner().invoke(app, ["simulate", *wrong.split(), "--json"])
    assert told.exit_code == 2
    assert json.loads(told.stdout).keys() == {"error"}


def test_the_command_says_what_it_simulates() -> None:
    assert CliRunner().invoke(app, ["simulate", "market", "--help"]).exit_code == 0
