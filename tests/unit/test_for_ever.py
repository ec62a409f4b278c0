"""What hashes decide is on disk and in flight, so every version decides it alike: arms, roles, coins, orders, keys.

Where a change of the code changes one of these numbers, the test is not what is to be mended: people would be in other
arms in the middle of an experiment, receipts recompute to other placements, and clicks miss what is open.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np

from scoring.assignment import OUTSIDE, Arm, Experiment, in_holdout
from scoring.dedup import mark_repeats
from scoring.ids import id64s
from scoring.interleaving import picks
from scoring.models import Models, Roles, Served, number_of
from scoring.pending import keys_of
from scoring.policies import in_control
from scoring.ranking import rank
from scoring.rows import RowStore
from scoring.slate import Limits, Wanted, fill
from streams.receipts import kept
from tests.builders import START_MS, catalogue, columns_of, impression

USERS = id64s([f"user-{number}" for number in range(16)])
ARMS = Experiment("price", "layer", 0.25, 0.75, 1, (Arm("a", 0.5), Arm("b", 0.3), Arm("c", 0.2)))


def test_a_user_stays_in_the_arm_that_they_are_in() -> None:
    assert np.flatnonzero(in_control(USERS, 0.3)).tolist() == [0, 2, 5, 7, 12, 15]
    assert np.flatnonzero(in_holdout(USERS, 0.3)).tolist() == [7, 9, 15]
    there, out = [0, 0, 1, 0, 0, 0, 0, 0, 1], [1, 3, 7, 8, 9, 10, 11]
    arms = ARMS.allocate(USERS)[0]
    assert (arms[arms != OUTSIDE].tolist(), np.flatnonzero(arms == OUTSIDE).tolist()) == (there, out)


def served(version: str) -> Served:
    """A model of which only the version is known."""
    model: Any = SimpleNamespace(version=version)
    return Served(model, catalogue(1))


def test_people_stay_with_the_canary_and_the_shadow_and_placements_in_the_sample_that_leaves_receipts() -> None:
    base, canary, shadow = (served(version) for version in ("live-0", "demo-1a2b3c4d", "demo-5e6f7a8b"))
    roles = Roles(canary=canary.version, canary_share=0.3, shadow=shadow.version, shadow_share=0.3)
    models = Models(base, canary=canary, shadow=shadow, roles=roles)
    assert [(by.version, people.tolist()) for by, people in models.split(USERS)] == [
        ("live-0", [at for at in range(16) if at not in (3, 12)]),
        ("demo-1a2b3c4d", [3, 12]),
    ]
    assert models.shadowed(USERS).tolist() == [2, 6, 15]
    assert np.flatnonzero(kept(USERS, 0.3)).tolist() == [2, 3, 4, 7, 15]


def test_a_placement_is_drawn_again_from_its_seed_as_it_was() -> None:
    seeds, ads = id64s(["0-1-2-ff", "0-1-2-fe", "3-0-9-1"]), np.tile(id64s([f"ad-{n}" for n in range(6)]), (3, 1))
    value, warm, limits = np.ones((3, 6)), np.ones(3), Limits(np.ones((3, 6), dtype=np.bool_))
    assert rank(value, ads, seeds, warm, slots=4).chosen.tolist() == [[3, 0, 1, 2], [0, 1, 4, 5], [5, 3, 4, 0]]
    assert fill(Wanted(value, warm), ads, seeds, 4, limits).chosen.tolist() == [
        [5, 1, 3, 4],
        [1, 3, 0, 4],
        [0, 4, 1, 3],
    ]
    assert ["".join("12"[second] for second in each) for each in picks(seeds, 6).astype(int)] == [
        "122112",
        "212112",
        "121221",
    ]


def test_an_open_impression_is_found_by_the_key_that_it_was_kept_under_and_a_repeated_one_by_its_showing() -> None:
    keys = keys_of(USERS[:2], id64s(["ad-1", "ad-2"]), np.array([START_MS, START_MS + 1_999]))
    assert keys.tolist() == [0x499F3020206A1E74, 0xD5C89353E6C75D9F]
    store = RowStore()
    mark_repeats(store.rows, columns_of(store, [impression("user-1", "ad-1", START_MS)]))
    assert store.rows["showings"][0, 0] == 0x71E32D4E


def test_a_model_keeps_the_number_under_which_lanes_know_it_and_impressions_remember_it() -> None:
    assert [number_of(version) for version in ("live-0", "demo-1a2b3c4d")] == [0x73750960, 0x0B81B54F]
