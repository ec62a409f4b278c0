"""What holds for tests of parts."""

from unittest.mock import AsyncMock

import pytest

from scoring.attention import AttentionModel, load
from scoring.engine import Engine
from streams.fatal import describe
from tests.unit.consenting import opened


@pytest.fixture(scope="session")
def model() -> AttentionModel:
    """The demo shop's model."""
    return load()


@pytest.fixture(scope="module")
def engine() -> Engine:
    """That of people who are asked for their consent (`tests.unit.consenting`)."""
    return opened()


@pytest.fixture
def reasons(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What an intake would end the process for; it goes on here."""
    out: list[str] = []
    monkeypatch.setattr("streams.intake.arm_exit", lambda error: out.append(describe(error)))
    monkeypatch.setattr("streams.intake.Intake.crash", AsyncMock())
    return out
