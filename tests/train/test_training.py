"""Training finds what is there, says how well, and gives the same network for the same seed."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'salience[train]'")

import torch

from onnx_models.alternatives.nets import Net
from onnx_models.examples import Examples, Items, collect
from onnx_models.metrics import Metrics, measure
from onnx_models.predicting import evaluate, predict
from onnx_models.training import Config, Step, TrainResult, train
from scoring.catalogue import Catalogue
from scoring.rows import RowStore
from streams.logs import Event, in_order
from tests.builders import START_MS, click, columns_of, entry, impression

pytestmark = pytest.mark.train

KINDS, ADS_EACH, USERS, NEW = 4, 12, 60, 2
"""Kinds of thing, ads of each kind, people, and ads of each kind that nobody is shown until the last fifth."""
LIKED, OTHER = 0.8, 0.1
"""Chance of a click on the kind of thing that one likes, and on any other."""
CONFIG = Config(vocabulary=256, epochs=6, batch=256, rate=5e-3, last_rate=1e-3, seed=3)


def planted(seed: int, moments: int = 30) -> tuple[Examples, Items]:
    """People who each like one kind of thing, browse it, and click on it and little else wherever it is shown."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    for user in range(USERS):
        liked = user % KINDS
        for moment in range(moments):
            time_ms = START_MS + moment * 600_000 + user * 1_000
            ads = ADS_EACH if moment >= 0.8 * moments else ADS_EACH - NEW
            events.append(click(f"user-{user}", f"ad-{liked}-{rng.integers(ads)}", time_ms))
            kind, number = rng.integers(KINDS), rng.integers(ads)
            shown = impression(f"user-{user}", f"ad-{kind}-{number}", time_ms + 30_000)
            events.append(shown)
            if rng.random() < (LIKED if kind == liked else OTHER):
                at, of = shown.time_ms + 2_000, shown.time_ms
                events.append(click(shown.user_id, shown.ad_id, at, impression_time_ms=of))
    shop = Catalogue()
    names = [(kind, number) for kind in range(KINDS) for number in range(ADS_EACH)]
    shop.upsert([entry(f"ad-{kind}-{number}", category=f"kind-{kind}") for kind, number in names])
    store = RowStore()
    return collect(columns_of(store, in_order(events)), store, shop)[0], Items.of(shop)


@pytest.fixture(scope="module")
def log() -> tuple[Examples, Items]:
    return planted(1)


@pytest.fixture(scope="module")
def trained(log: tuple[Examples, Items]) -> TrainResult:
    early, _ = log[0].time_split(0.8)
    return train(early, log[1], CONFIG)


def knowing(examples: Examples) -> Metrics:
    """What one reaches who knows what everyone likes."""
    liked = examples.item // ADS_EACH == examples.row % KINDS
    return measure(examples.label, np.where(liked, LIKED, OTHER).astype(np.float32))


def uncertainty(examples: Examples) -> float:
    """The log loss of one who knows nothing but the click rate."""
    rate = float(examples.label.mean())
    return -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))


def test_a_planted_preference_is_learnt(log: tuple[Examples, Items], trained: TrainResult) -> None:
    _, late = log[0].time_split(0.8)
    found, best = evaluate(trained.network, late, log[1]), knowing(late)
    assert found.auc > best.auc - 0.04
    assert found.log_loss < (uncertainty(late) + best.log_loss) / 2
    assert 0.8 < found.calibration < 1.25


def test_what_was_never_shown_in_training_is_judged_by_its_content(
    log: tuple[Examples, Items], trained: TrainResult
) -> None:
    _, late = log[0].time_split(0.8)
    new = late.at(late.item % ADS_EACH >= ADS_EACH - NEW)
    assert len(new) > 30
    assert evaluate(trained.network, new, log[1]).auc > knowing(new).auc - 0.08


def test_a_preference_that_is_not_there_is_not_found(log: tuple[Examples, Items]) -> None:
    """The control of the tests above: clicks dealt out anew leave nothing to learn."""
    early, late = log[0].time_split(0.8)
    early = replace(early, label=np.random.default_rng(7).permutation(early.label))
    assert evaluate(train(early, log[1], CONFIG).network, late, log[1]).log_loss > uncertainty(late) - 0.01


def test_a_seed_gives_one_network_and_another_seed_another(log: tuple[Examples, Items]) -> None:
    short = Config(vocabulary=256, epochs=1, batch=512, seed=3)
    first, second = (train(log[0], log[1], short).network.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = train(log[0], log[1], Config(vocabulary=256, epochs=1, batch=512, seed=4)).network.state_dict()
    assert not torch.equal(first["encoder.table"], other["encoder.table"])


def test_learning_a_batch_in_parts_is_learning_it_whole(
    log: tuple[Examples, Items], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(CONFIG, epochs=1)
    monkeypatch.setattr("onnx_models.training.PART", 10**6)
    whole = train(*log, short)
    monkeypatch.setattr("onnx_models.training.PART", 7)
    parts = train(*log, short)
    assert whole.losses == pytest.approx(parts.losses, rel=1e-5)
    np.testing.assert_allclose(predict(whole.network, *log), predict(parts.network, *log), atol=1e-4)


def test_an_example_is_predicted_alike_alone_and_among_those_with_more_past_items(
    log: tuple[Examples, Items], trained: TrainResult
) -> None:
    examples, items = log
    met = np.count_nonzero(examples.history >= 0, axis=1)
    few = [int(np.argmin(met)), int(np.argsort(met)[len(met) // 2]), int(np.argmax(met))]
    assert met[few[0]] < met[few[1]] < met[few[2]]
    alone = [predict(trained.network, examples.at(np.array([place])), items)[0] for place in few]
    assert alone == pytest.approx(predict(trained.network, examples, items)[few].tolist(), abs=1e-6)


def test_training_leaves_the_randomness_of_others_alone(log: tuple[Examples, Items]) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train(log[0].time_split(0.3)[0], log[1], Config(vocabulary=256, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_the_network_of_the_best_epoch_is_kept(log: tuple[Examples, Items], trained: TrainResult) -> None:
    losses = [metrics.log_loss for metrics in trained.epochs]
    assert trained.validation.log_loss <= min(losses)  # scaled and shifted to fit besides
    assert trained.validation.calibration == pytest.approx(1, abs=0.01)
    early, _ = log[0].time_split(0.8)
    _, validation = early.time_split(1 - CONFIG.validation)
    untaught = train(early, log[1], replace(CONFIG, last_rate=0.0))
    assert untaught.validation == trained.validation
    found = evaluate(untaught.network, validation, log[1])
    assert found.log_loss == pytest.approx(trained.validation.log_loss, abs=1e-4)  # its level is set once more
    assert found.auc == trained.validation.auc


def test_what_the_validation_part_tells_is_learnt_last_and_predicted_in_its_measure(
    log: tuple[Examples, Items], trained: TrainResult
) -> None:
    early, _ = log[0].time_split(0.8)
    _, validation = early.time_split(1 - CONFIG.validation)
    now = evaluate(trained.network, validation, log[1])
    assert now.log_loss < trained.validation.log_loss
    assert now.calibration == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11])
def test_a_lesson_may_have_any_number_of_steps(log: tuple[Examples, Items], steps: int) -> None:
    some, _ = log[0].time_split(0.3)
    learn, validation = some.time_split(1 - CONFIG.validation)
    batches = {"batch": -(-len(learn) // steps), "last_batch": -(-len(validation) // steps)}
    told: list[Step] = []
    train(some, log[1], replace(CONFIG, epochs=1, **batches), told.append)
    newest = -(-len(validation) // batches["last_batch"])
    assert Counter(step.lesson for step in told) == {"Learning clicks": steps, "Learning the newest": newest}


def test_progress_is_told_for_every_batch(log: tuple[Examples, Items]) -> None:
    told: list[Step] = []
    train(log[0], log[1], Config(vocabulary=256, epochs=2, batch=512), told.append)
    steps = [step for step in told if step.lesson == "Learning clicks"]
    assert {step.epoch for step in steps} == {0, 1}
    for epoch in (0, 1):
        of_epoch = [step for step in steps if step.epoch == epoch]
        assert [step.batch for step in of_epoch] == list(range(1, of_epoch[0].batches + 1))
    assert steps[0].validation is None
    assert steps[-1].validation is not None


def test_predicting_changes_nothing_and_gives_chances(log: tuple[Examples, Items], trained: TrainResult) -> None:
    before = {name: weight.clone() for name, weight in trained.network.state_dict().items()}
    chances = predict(trained.network, log[0], log[1])
    assert chances.shape == (len(log[0]),)
    assert ((chances > 0) & (chances < 1)).all()
    assert all(torch.equal(weight, before[name]) for name, weight in trained.network.state_dict().items())


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_log_without_clicks_or_with_nothing_else_is_refused(log: tuple[Examples, Items], label: float) -> None:
    flat = log[0].at(np.arange(200))
    flat.label[:] = label
    with pytest.raises(ValueError, match=f"click rate {label:g}; expected some with and some without a click"):
        train(flat, log[1], CONFIG)


def test_items_are_encoded_before_anybody_is_scored_and_not_again_for_each_prediction(
    log: tuple[Examples, Items],
) -> None:
    net, encoded = Net("attention", Config(vocabulary=256, epochs=1)), []
    net.fit(*log)
    assert net.result is not None
    net.result.network.encoder.register_forward_hook(lambda *_: encoded.append(1))
    few = log[0].at(np.arange(40))
    chances = net.predict(few)
    assert not encoded
    assert chances == pytest.approx(predict(net.result.network, few, log[1]), abs=1e-6)
