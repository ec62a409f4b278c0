"""What lanes' click layers tell each other on a log: one lane, several alone, several that share."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'salience[train]'")

from onnx_models import sharing
from onnx_models.trial import Trial
from scoring.events import Source
from scoring.pool import Pool

pytestmark = pytest.mark.train


def test_a_lane_is_served_by_what_it_has_learned_of_ads_that_were_chosen(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "SLICE_MS", 100)
    events = trial.stream.events.copy()
    events["slot"] = np.where(events["source"] == Source.IMPRESSION, 0, -1)
    told = replace(trial, stream=replace(trial.stream, events=events))
    logit = np.full(len(told.stateful), 2.0)  # far too much, which the layer learns
    _, layer = told.stream.observe(logit, told.stateful)
    served, late = sharing.serve(told, logit, 1, share=False), slice(len(logit) // 2, None)
    assert served[late].mean() == pytest.approx(layer.predicted[late].mean(), rel=0.05)
    assert layer.predicted[late].mean() < 0.8


def test_lanes_that_share_have_told_each_other_of_every_ad_by_the_end(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[Pool] = []

    class Kept(Pool):
        def __init__(self) -> None:
            super().__init__()
            pools.append(self)

    monkeypatch.setattr(sharing, "Pool", Kept)
    logit, ads = np.full(len(trial.stateful), -1.0), trial.catalogue.ad.tolist()
    sharing.serve(trial, logit, 2, share=True)
    alone = sharing._Lane(trial, logit)
    alone.slice(np.flatnonzero(trial.stream.users % np.uint64(2) == 0), np.zeros(len(logit)))
    records = alone.layer.lifts.records(ads)
    assert (records[:, 1] > 0).sum() > 10
    np.testing.assert_array_equal(pools[0].others(1).records(ads), records)


def test_an_event_dated_millennia_after_the_rest_changes_nothing_in_how_lanes_are_served(trial: Trial) -> None:
    stream, logit = trial.stream, np.full(len(trial.stateful), -1.0)
    last = stream.events[-1:].copy()
    last["time_ms"] += 10**16
    users = np.append(stream.users, stream.users[-1:])
    late = replace(stream, events=np.concatenate([stream.events, last]), users=users)
    served = sharing.serve(replace(trial, stream=late), logit, 2, share=True)
    np.testing.assert_array_equal(served, sharing.serve(trial, logit, 2, share=True))
