"""Settings of the caller do not reach the demo, and are there again after it."""

import os

import pytest

from streams.connection import security
from streams.demo.sealed import sealed
from streams.demo.worker import environment_with
from streams.settings import Settings


def test_a_sealed_block_has_no_setting_of_the_callers_however_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIENCE_GROUP", "shop")
    monkeypatch.setenv("salience_slots", "3")
    monkeypatch.setenv("Salience_Security_Protocol", "SSL")
    monkeypatch.setenv("SALIENCES", "of another program")
    before = dict(os.environ)
    with sealed():
        assert (Settings().group, Settings().slots, security().security_protocol) == ("salience", 10, "PLAINTEXT")
        assert os.environ["SALIENCES"] == "of another program"
    assert dict(os.environ) == before


def test_a_sealed_block_that_fails_gives_the_settings_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIENCE_GROUP", "shop")
    with pytest.raises(ZeroDivisionError), sealed():
        _ = 1 // 0
    assert Settings().group == "shop"


def test_a_workers_own_settings_come_before_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("SALIENCE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SALIENCE_SLOTS", "3")
    monkeypatch.setenv("salience_bootstrap", "shop:9092")
    told = environment_with({"bootstrap": "127.0.0.1:1"})
    settings = {name: value for name, value in told.items() if name.upper().startswith("SALIENCE_")}
    assert settings == {"SALIENCE_SLOTS": "3", "SALIENCE_BOOTSTRAP": "127.0.0.1:1"}
