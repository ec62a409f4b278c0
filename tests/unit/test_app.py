"""The worker's app: tokens of lanes pass through Faust's channel, whose silences are made loud."""

from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import AsyncMock

import faust
import pytest

from scoring.feedback import Learning
from streams.app import HomeError, create_app, learning, make_step
from streams.intake import Intake
from streams.rules import read
from streams.settings import Settings
from tests.unit.lanes import IDENTITY, Group
from tests.unit.slices import step_of

LANES = (3, 1)


def started(home: Path) -> tuple[faust.App, faust.Agent, Intake]:
    """An app whose intake has just made what its lanes share, as it does before it joins the group."""
    app = create_app(Settings(home=home), IDENTITY)
    (agent,) = app.agents.values()
    (intake,) = [service for service in app._extra_services if isinstance(service, Intake)]
    intake._make_shared(Group())
    return app, agent, intake


def test_a_home_that_cannot_be_made_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HomeError, match=r"file/home is no folder \(Not a directory\); name one that is yours"):
        create_app(Settings(home=tmp_path / "file" / "home"), IDENTITY)


async def test_every_token_reaches_the_agent_since_the_channel_is_opened_once(tmp_path: Path) -> None:
    _, agent, intake = started(tmp_path)
    reader = agent.channel.clone(is_iterator=True)
    for lane in LANES:
        await intake._offer(lane)
    assert [reader.queue.get_nowait() for _ in range(reader.queue.qsize())] == list(LANES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time_tolerance_ms", 7),
        ("idle_ttl_ms", 8),
        ("erased_kept_ms", 9),
        ("receipts_share", 0.25),
        ("scoring", False),
        ("consent_presumed", False),
    ],
)
def test_a_step_is_as_the_settings_say(name: str, value: float) -> None:
    made = make_step(Settings(**{name: value}), step_of().engine, 4)
    assert getattr(made, name) == value


@pytest.mark.parametrize("name", ["late_ms", "impressions_per_minute", "actions_per_day", "unshown_per_day"])
def test_what_counts_as_interest_is_as_the_settings_say(name: str) -> None:
    told = Settings(**{name: 7})
    assert make_step(told, step_of().engine, 4).rules == told.cleaning != Settings().cleaning


@pytest.mark.parametrize("readers", [0, 2])
async def test_a_token_that_nobody_or_more_than_one_would_read_is_refused(readers: int, tmp_path: Path) -> None:
    _, agent, intake = started(tmp_path)
    _alive = [agent.channel.clone(is_iterator=True) for _ in range(readers)]
    with pytest.raises(AssertionError, match=f"lane tokens have {readers} readers, expected one"):
        await intake._offer(LANES[0])


@pytest.mark.parametrize("told", [True, False])
async def test_an_agent_that_ends_ends_the_worker_unless_it_was_told_to_stop(
    told: bool, reasons: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = AsyncMock()
    monkeypatch.setattr("streams.intake.Intake.step", step)

    async def tokens() -> AsyncIterator[int]:
        for lane in LANES:
            yield lane

    app, agent, _ = started(tmp_path)
    if told:
        app._stopped.set()
    await agent.fun(tokens())
    assert [call.args for call in step.await_args_list] == [(lane,) for lane in LANES]
    assert reasons == ([] if told else ["RuntimeError: an agent ended"])


def test_the_click_layer_learns_as_the_settings_say() -> None:
    told = Settings(click_window_ms=2_000, click_pending_max=100, click_wait_ms=1_000, click_negatives=0.5)
    examination = read(None).terms().examination
    assert learning(told) == Learning(2_000, 1_000, 100, 0.5, examination)
    assert learning(Settings(click_layer=False)) is None
