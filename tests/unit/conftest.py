"""What holds for tests of parts."""

from unittest.mock import AsyncMock

import pytest

from streams.fatal import describe


@pytest.fixture
def reasons(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What an intake would end the process for; it goes on here."""
    out: list[str] = []
    monkeypatch.setattr("streams.intake.arm_exit", lambda error: out.append(describe(error)))
    monkeypatch.setattr("streams.intake.Intake.crash", AsyncMock())
    return out
