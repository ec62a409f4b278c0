"""What a referee's pages tell: whether it judges, why not, how far it has read, and what experiments show."""

import asyncio
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError

import pytest
from aiokafka.errors import NodeNotReadyError

from streams.experiments.exporter import RefereeCollector
from streams.experiments.vitals import Vitals
from streams.metrics.serve import serving
from streams.settings import Settings
from tests.unit.test_referee_service import EndError, Shop


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.ms = 1_000

    def __call__(self) -> int:
        return self.ms


def asked(vitals: Vitals, path: str) -> tuple[int, str]:
    """Status and text of a page."""

    def get(url: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url) as page:
                return page.status, page.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    async def ask() -> tuple[int, str]:
        ready: list[str] = []
        async with serving(RefereeCollector(vitals), Settings(), 0, ready.append, vitals.unwell):
            return await asyncio.to_thread(get, ready[0].replace("/metrics", path))

    return asyncio.run(ask())


def figures(vitals: Vitals) -> dict[str, float]:
    """The samples of ``/metrics``."""
    _, page = asked(vitals, "/metrics")
    return {name: float(value) for name, value in re.findall(r"^(salience\S+) (\S+)$", page, re.MULTILINE)}


def judged(vitals: Vitals, *, caught_up: bool = True) -> None:
    vitals.judged([], 5_000, caught_up=caught_up)


def test_a_referee_is_well_once_it_has_judged_by_all_that_was_there() -> None:
    vitals = Vitals(10_000)
    vitals.behind |= {"outcomes": 40, "state-changelog": 2}
    judged(vitals, caught_up=False)
    assert asked(vitals, "/healthz") == (503, "has not caught up; records to be read: 42\n")
    assert figures(vitals)["salience_referee_judging"] == 0

    judged(vitals)
    judged(vitals, caught_up=False)  # its own word is to be read first
    assert asked(vitals, "/healthz") == (200, "ok\n")
    told = figures(vitals)
    assert (told["salience_referee_judging"], told["salience_referee_judged_timestamp_seconds"]) == (1, 5)
    assert told['salience_referee_lag_records{topic="outcomes"}'] == 40


@pytest.mark.parametrize(("every_ms", "most_ms"), [(200, 30_000), (10_000, 50_000)])
def test_a_referee_that_has_not_judged_for_five_looks_and_half_a_minute_is_silent_until_it_does(
    every_ms: int, most_ms: int
) -> None:
    clock = Clock()
    vitals = Vitals(every_ms, clock)
    judged(vitals)
    clock.ms += most_ms
    assert vitals.unwell() == ""
    clock.ms += 1
    assert vitals.unwell() == f"nothing judged for {most_ms // 1000} s"
    vitals.failing = "NodeNotReadyError"
    assert vitals.unwell() == f"nothing judged for {most_ms // 1000} s: NodeNotReadyError"
    judged(vitals)
    assert (vitals.unwell(), vitals.failing) == ("", "")


def shop(monkeypatch: pytest.MonkeyPatch, home: Path, *errors: NodeNotReadyError) -> tuple[Shop, Callable[[], None]]:
    """One whose only experiment breaks a guardrail, and what runs its referee for two looks that can judge."""
    made = Shop([*errors], monkeypatch, home)

    def run() -> None:
        with pytest.raises(EndError):
            asyncio.run(made.service.run())

    return made, run


def test_what_a_referee_has_read_judged_and_ended_is_on_its_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, run = shop(monkeypatch, tmp_path)
    made.broker.rows = 3
    assert figures(made.service.vitals)["salience_guardrails_broken_total"] == 0
    run()  # a row at each look
    told = figures(made.service.vitals)
    assert told['salience_experiments{finding="stopped"}'] == 1
    assert told['salience_experiments{finding="better"}'] == 0
    assert told["salience_guardrails_broken_total"] == 1
    assert made.service.vitals.behind == {
        "control": 0, "ads": 0, "ad-impressions": 0, "outcomes": 0, "state-changelog": 1
    }  # fmt: skip
    assert told["salience_referee_judging"] == 0


def test_why_a_look_could_not_judge_is_known_until_one_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made, run = shop(monkeypatch, tmp_path, NodeNotReadyError())
    heard: list[tuple[str, int]] = []
    save = "streams.experiments.service.save"
    monkeypatch.setattr(save, lambda *_: heard.append((made.service.vitals.failing, made.service.vitals.judged_ms)))
    run()
    (first, judged_ms), _ = heard
    assert "NodeNotReadyError" in first
    assert judged_ms == 0
    assert made.service.vitals.failing == ""
    assert made.service.vitals.judged_ms > 0
