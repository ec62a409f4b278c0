"""A log parted in time: what trains, what tests, and what a click is, for the labels as for the click layer."""

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from scoring.units import MINUTE_MS

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'salience[train]'")

from onnx_models.alternatives.nets import without_reviews
from onnx_models.cold import segments, unmet
from onnx_models.trial import Trial
from scoring.cleaning import Rules
from scoring.events import Source
from scoring.ids import MISSING
from scoring.inputs import RATED, REVIEWED, SESSION_S
from streams.cli.trials import trial_of
from streams.logs import Log, in_order
from tests.builders import START_MS, ad, click, impression, made_up_log, tone

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def trial() -> Trial:
    log = made_up_log(3, events=600, users=12)
    return trial_of(log, lambda _done, _total: None)


def test_a_log_is_parted_by_its_time_however_many_impressions_its_days_have() -> None:
    crowd = [impression("user-1", f"ad-{number}", START_MS + 1_000 * number) for number in range(90)]
    late = [impression("user-1", "ad-0", START_MS + 1_000 * (100 + 10 * number)) for number in range(11)]
    old = impression("user-1", "ad-0", START_MS - 1_000_000)  # tells looks alone
    ads = [ad("ad-0")]
    trial = trial_of(Log(ads, [old, *crowd, *late]), lambda _done, _total: None, START_MS, share=0.8)
    assert trial.cut_ms == START_MS + 160_000


def test_a_log_that_one_wrong_time_would_part_is_refused_with_both_counts() -> None:
    crowd = [impression("user-1", f"ad-{number}", START_MS + 1_000 * number) for number in range(150)]
    late, early = (impression("user-1", "ad-0", START_MS + away * 10**10) for away in (1, -1))
    for log, count in (([*crowd, late], 150), ([early, *crowd], 1), (crowd[:1], 0)):
        with pytest.raises(ValueError, match=rf"^{count} of {len(log)} impressions are of the first 80% of the log's"):
            trial_of(Log([], log), lambda _done, _total: None, share=0.8)


def test_a_log_of_clicks_alone_is_refused_for_what_it_lacks() -> None:
    with pytest.raises(ValueError, match=r"^the log has no impressions; expected one that has some$"):
        trial_of(Log([ad("ad-0")], [click("user-1", "ad-0", START_MS)]), lambda _done, _total: None, share=0.8)


def test_a_log_whose_ads_are_not_those_that_were_shown_is_refused_with_the_part_that_lacks_them() -> None:
    shown = ["ad-0" if number < 80 else "ad-1" for number in range(100)]
    log = [impression("user-1", of, START_MS + 1_000 * number) for number, of in enumerate(shown)]
    for ads, what, count in (([ad("ad-0")], "of the test", 20), ([ad("ad-1")], "to learn from", 80)):
        with pytest.raises(ValueError, match=rf"^no impressions {what}: {count} are of ads that .* \(ads\.parquet\)"):
            trial_of(Log(ads, log), lambda _done, _total: None, share=0.8)


def test_a_log_whose_test_is_more_than_one_person_makes_is_refused_for_that_and_not_for_its_ads() -> None:
    per_minute, minute_ms = Rules().per_minute[Source.IMPRESSION], START_MS // MINUTE_MS * MINUTE_MS
    crowd = [impression("user-1", "ad-0", minute_ms + 9 * number) for number in range(per_minute + 2_000)]
    with pytest.raises(ValueError, match=r"^no impressions of the test: 1,000 are more than one.*, and of people"):
        trial_of(Log([ad("ad-0")], crowd), lambda _done, _total: None, share=0.8)


def test_impressions_that_neither_teach_nor_test_are_told_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    log = [impression(f"user-{number % 7}", "ad-0", START_MS + 60_000 * number) for number in range(200)]
    again = [log[3], structs.replace(log[190], event_id="another")]
    unknown = [impression("user-1", "ad-1", START_MS + 90_000 * number) for number in range(30)]
    most = Rules().per_minute[Source.IMPRESSION]
    crowd = [impression("robot", "ad-0", START_MS + number) for number in range(most + 5)]
    trial = trial_of(Log([ad("ad-0")], in_order([*log, *again, *unknown, *crowd])), lambda _done, _total: None)
    assert trial.left == (30, 2, 5)
    assert len(trial.learn) + len(trial.stateful) == len(log) + len(crowd) - 5
    told = " ".join(capsys.readouterr().err.split())
    assert "30 are of ads that the catalogue lacks, 2 are told before, 5 are more than one person makes" in told


def test_of_a_log_all_of_which_teaches_or_tests_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    log = [impression(f"user-{number % 7}", "ad-0", START_MS + 60_000 * number) for number in range(200)]
    assert not any(trial_of(Log([ad("ad-0")], log), lambda _done, _total: None).left)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (None, "50 name none, 0 one that the log lacks"),
        (7_000, "0 name none, 50 one that the log lacks"),
    ],
)
def test_clicks_of_which_none_answers_an_impression_are_refused_for_that(names: int | None, told: str) -> None:
    shown = [impression(f"user-{at % 7}", "ad-0", START_MS + 60_000 * at) for at in range(100)]
    clicks = [
        click(
            each.user_id, "ad-0", each.time_ms + 9, impression_time_ms=None if names is None else each.time_ms + names
        )
        for each in shown[::2]
    ]
    with pytest.raises(
        ValueError, match=rf"^none of the 50 clicks answers an impression: {told}; .*impression_time_ms"
    ):
        trial_of(Log([ad("ad-0")], in_order([*shown, *clicks])), lambda _done, _total: None)


def test_clicks_whose_impression_is_not_there_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    shown = [impression(f"user-{at % 7}", "ad-0", START_MS + 60_000 * at) for at in range(100)]
    clicks = [click(each.user_id, "ad-0", each.time_ms + 9, impression_time_ms=each.time_ms) for each in shown[::2]]
    astray = [structs.replace(each, user_id="renamed", event_id=f"other-{at}") for at, each in enumerate(clicks[:5])]
    own = [click("user-1", "ad-0", START_MS + 7_000 * at) for at in range(9)]  # the person's own idea
    trial = trial_of(Log([ad("ad-0")], in_order([*shown, *clicks, *own, *astray])), lambda _done, _total: None)
    assert trial.astray == 5
    assert "5 clicks name an impression that the log lacks" in " ".join(capsys.readouterr().err.split())


def test_a_test_whose_state_stands_still_is_told_of_reviews_as_of_its_beginning() -> None:
    log = made_up_log(3, events=600, users=12)
    times = [event.time_ms for event in log.events]
    said = [tone("ad", ad.ad_id, 40, times[100], 0.9) for ad in log.ads[::2]]
    said += [tone("ad", ad.ad_id, 41, times[-50], 0.1) for ad in log.ads[::4]]
    trial = trial_of(replace(log, tones=said), lambda _done, _total: None)
    frozen, stateful = trial.frozen.stats[:, REVIEWED:], trial.stateful.stats[:, REVIEWED:]
    late = trial.stateful.time_ms > times[-50]
    np.testing.assert_array_equal(frozen[~late], stateful[~late])
    assert (frozen[late] != stateful[late]).any()
    deaf = without_reviews(trial.frozen).stats
    assert not deaf[:, REVIEWED:].any()
    np.testing.assert_array_equal(deaf[:, :REVIEWED], trial.frozen.stats[:, :REVIEWED])


def test_labels_and_click_layer_agree_on_what_a_click_is_and_late_ones_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, events = np.random.default_rng(9), []
    for number in range(400):
        user, shown_ms = f"user-{number % 9}", START_MS + 60_000 * number
        events.append(impression(user, f"ad-{number % 7}", shown_ms))
        if rng.random() < 0.5:
            after_ms = 1_800_000 if rng.random() < 0.4 else 5_000
            events.append(click(user, f"ad-{number % 7}", shown_ms + after_ms, impression_time_ms=shown_ms))
    monkeypatch.setenv("SALIENCE_CLICK_WINDOW_MS", "900000")
    ads = [ad(f"ad-{number}") for number in range(7)]
    trial = trial_of(Log(ads, in_order(events)), lambda _done, _total: None, share=0.2)
    assert f"{trial.late} of" in " ".join(capsys.readouterr().err.split())
    assert trial.late > 50
    assert trial.stream.learning.window_ms == 900_000
    _, observed = trial.stream.observe(np.zeros(len(trial.stateful)), trial.stateful)
    ended = observed.outcomes["shown_ms"] + 900_000 <= events[-1].time_ms
    clicked = dict(zip(observed.outcomes["shown_ms"].tolist(), observed.outcomes["clicked"].tolist(), strict=True))
    assert ended.sum() > 200
    for time_ms, label in zip(trial.stateful.time_ms.tolist(), trial.stateful.label.tolist(), strict=True):
        assert clicked.get(time_ms, label) == label


def test_as_if_nobody_had_met_an_ad_a_brand_that_has_no_other_tells_nothing_either(trial: Trial) -> None:
    stats = trial.stateful.stats.copy()
    stats[:, RATED : RATED + 4] = 0.25, 0.5, 0.25, 0.5
    stats[::2, RATED + 3] = 0.75  # of other ads, too
    found = unmet(replace(trial.stateful, stats=stats)).stats
    assert not found[:, RATED : RATED + 2].any()
    assert not found[1::2, RATED + 2 : RATED + 4].any()
    assert (found[::2, RATED + 2 : RATED + 4] == [0.25, 0.75]).all()


def test_new_people_in_their_session_are_told_apart_from_those_who_come_back(trial: Trial) -> None:
    nobody, test = trial.learn.at(np.arange(0)), trial.stateful
    history, age = np.full_like(test.history, MISSING), np.zeros_like(test.age)
    first, back = len(test) // 3, 2 * len(test) // 3
    history[first:, -1] = 0
    age[first:back, -1], age[back:, -1] = np.log1p(SESSION_S - 1), np.log1p(SESSION_S)
    asked = replace(trial, learn=nobody, before=nobody, stateful=replace(test, history=history, age=age))
    chances = np.full(len(test), 0.3)
    found = {each.name: each.examples for each in segments(asked, {"frozen": chances, "stateful": chances})}
    assert found["new people, first impression"] == first
    assert found["new people, session so far"] == found["the same, as if they had none"] == back - first
    assert found["new people, back after a pause"] == len(test) - back
    assert found["new people, context alone"] == len(test)
