"""An experiment between models through the command line: each arm's users are scored by the model that it names."""

from pathlib import Path

import pytest

from deploy.brokers import Broker
from scoring.attention import load
from streams.explain import recompute
from streams.wire import Decision
from tests.integration.lanes import ADS, Shop, play, shop_on
from tests.integration.test_experiments import salience
from tests.integration.test_models import Stream, all_of, engine_of, push_unseen, scored_by, told
from tests.integration.workers import Worker
from tests.models import fails_in_use, toy_model

pytestmark = pytest.mark.integration


def test_arms_score_by_the_models_that_they_name_and_a_model_that_is_refused_starts_nothing(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        old, new = toy_model(tmp_path / "old"), toy_model(tmp_path / "new", seed=1)
        folders = {load(folder).version: folder for folder in (old, new)}
        version = load(new).version
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once", model=old)
        await shop.publish(ADS)
        stream = Stream(shop)
        arms = ("--arm", "as-is=0.5", "--arm", f"newer=0.5:model={version}")
        with Worker(shop, tmp_path / "worker.log") as worker:
            async with stream.flowing():
                assert f"there is no model '{version}'; there are: none" in await salience(
                    shop, "experiment", "create", "duel", *arms, fails=True
                )
                await salience(shop, "model", "push", str(new))
                await salience(shop, "experiment", "create", "duel", *arms)
                listed = await told(shop, version, lambda one: one["lanes"] > 0, "that workers hold a draft's model")
                assert (listed["state"], listed["refusals"]) == ("experiment", [])
                assert "an experiment's arm names" in await salience(shop, "model", "remove", version, fails=True)
                await salience(shop, "experiment", "start", "duel")
                await scored_by(shop, version)
                await _refuses_what_is_bad(shop, tmp_path)
                await scored_by(shop, load(old).version, alone=True)
            assert worker.process.poll() is None, worker.said
        engines = {name: engine_of(shop, folder) for name, folder in folders.items()}
        scored: dict[str, set[str]] = {}
        for at, decision in enumerate(await all_of(shop, "decisions", Decision)):
            scored.setdefault(decision.arm, set()).add(decision.versions["model"])
            if at % 5 == 0:
                assert recompute(decision, engines[decision.versions["model"]]).differences == []
        # Who is scored in the very slice in which the other arm's model fails has taken part; nobody after that.
        assert scored.pop("trap/as-is", {load(old).version}) == {load(old).version}
        assert scored == {
            "engine": {load(old).version},
            "control": {load(old).version},
            "duel/as-is": {load(old).version},
            "duel/newer": {version},
        }

    play(scenario)


async def _refuses_what_is_bad(shop: Shop, tmp_path: Path) -> None:
    """One that lies about its outputs makes no draft; one that fails when it scores starts once, and never again."""
    lies = toy_model(tmp_path / "lies", seed=2, golden=lambda golden: golden.update(logit=golden["logit"] + 1))
    bad = await push_unseen(shop, lies)
    create = ("experiment", "create", "lie", "--layer", "other", "--arm", "as-is=0.5", "--arm")
    assert "changes model too" in await salience(shop, *create, f"bad=0.5:model={bad}", fails=True)
    create = ("experiment", "create", "lie", "--arm", "as-is=0.5", "--arm")
    assert "no 1.000 of the layer is free" in await salience(shop, *create, f"bad=0.5:model={bad}", fails=True)
    await salience(shop, "experiment", "stop", "duel")
    assert "differ from the golden ones by 1" in await salience(shop, *create, f"bad=0.5:model={bad}", fails=True)
    trap = toy_model(tmp_path / "trap", seed=3, graphs=fails_in_use)
    await salience(shop, "model", "push", str(trap))
    failing = load(trap).version
    for name in ("trap", "again"):
        arms = ("--arm", "as-is=0.5", "--arm", f"bad=0.5:model={failing}", "--width", "0.5")
        await salience(shop, "experiment", "create", name, *arms)
    await salience(shop, "experiment", "start", "trap")
    found = await told(shop, failing, lambda one: bool(one["refusals"]), "a refusal")
    assert "no finite numbers" in found["refusals"][0]["reason"]
    assert "refuses" in await salience(shop, "experiment", "start", "again", fails=True)
