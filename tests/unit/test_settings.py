"""Settings: from the environment, and refused where they would fail later."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.main import get_command
from typer.testing import CliRunner

from scoring.rows import RING_SIZE
from streams.checkup import checkup
from streams.cli import app
from streams.settings import Settings, misspelt


def test_a_setting_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIENCE_SLOTS", "3")
    assert Settings().slots == 3


def test_a_placement_has_no_more_ads_than_impressions_are_remembered_for_which_clicks_can_be_charged() -> None:
    assert Settings(slots=RING_SIZE).slots == 50
    with pytest.raises(ValidationError, match="less than or equal to 50"):
        Settings(slots=51)


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("slice_deadline_ms", "transaction_timeout_ms"),
        ("heartbeat_ms", "session_timeout_ms"),
        ("revoke_deadline_ms", "rebalance_timeout_ms"),
    ],
)
def test_a_deadline_that_does_not_fit_in_another_is_refused_by_name(smaller: str, larger: str) -> None:
    with pytest.raises(
        ValidationError, match=f"SALIENCE_{smaller.upper()}=5000 must be below SALIENCE_{larger.upper()}"
    ):
        Settings(**{smaller: 5_000, larger: 5_000})  # type: ignore[arg-type]  # by name


def test_there_is_nothing_to_explore_without_a_click_layer() -> None:
    with pytest.raises(ValueError, match=r"SALIENCE_EXPLORE=thompson .* SALIENCE_CLICK_LAYER=true is expected"):
        Settings(explore="thompson", click_layer=False)


def test_what_is_wrong_with_a_setting_is_told_without_the_secrets_beside_it() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(explore="thompson", click_layer=False, seal_secret="hush-hush", web_token="s3cret")
    assert "hush-hush" not in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("name", ["group", "instance_id", "home", "model", "web_host"])
def test_an_empty_variable_of_a_name_or_a_place_is_as_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SALIENCE_{name.upper()}", "")
    assert getattr(Settings(), name) == Settings.model_fields[name].default


@pytest.mark.parametrize(
    ("command", "option", "default"),
    [
        *((command, "model", None) for command in ("worker", "console", "doctor", "explain p-1", "verify")),
        ("worker", "home", None),
        ("broker apache status", "home", Path(".salience")),
    ],
)
def test_an_empty_option_is_no_folder_and_the_one_that_one_stands_in_is_where_it_is_typed(
    command: str, option: str, default: Path | None
) -> None:
    found = [_parsed(command, option, text) for text in ("", ".", "a/b")]
    assert found == [default, Path(), Path("a/b")]


def test_an_empty_address_to_listen_on_is_loopback_also_with_a_token() -> None:
    assert Settings(web_host="", web_token="s3cret").web_host == "127.0.0.1"


def _parsed(command: str, option: str, text: str) -> object:
    """What a command is given as the value of an option."""
    found, words = get_command(app), command.split()
    while commands := getattr(found, "commands", None):
        found = commands[words.pop(0)]
    return found.make_context("salience", [*words, f"--{option}", text]).params[option]


def test_an_empty_option_gives_way_to_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIENCE_HOME", "/x")
    assert _parsed("broker apache status", "home", "") == Path("/x")


@pytest.mark.parametrize("command", ["lanes adopt", "topics acls", "console"])
def test_an_empty_option_is_no_group(command: str) -> None:
    told = CliRunner().invoke(app, [*command.split(), "--group", ""])
    assert (told.exit_code, "'' is none;" in told.output) == (2, True)


@pytest.mark.parametrize("name", ["rules", "web_token_file", "seal_secret_file"])
def test_an_empty_variable_of_what_guards_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SALIENCE_{name.upper()}", "")
    with pytest.raises(ValidationError, match=f"SALIENCE_{name.upper()} is set and empty; expected a path"):
        Settings()


def test_an_empty_variable_is_no_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIENCE_CONSENT_PRESUMED", "")
    with pytest.raises(ValidationError, match=r"consent_presumed\n.*valid boolean"):
        Settings()


@pytest.mark.parametrize("name", ["web_token_file", "seal_secret_file"])
def test_a_file_of_a_secret_that_is_not_there_is_told_by_its_setting(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=f"SALIENCE_{name.upper()}={tmp_path}/none is no file"):
        Settings(**{name: tmp_path / "none"})  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("name", ["web_token_file", "seal_secret_file"])
@pytest.mark.parametrize(
    ("held", "said"), [(b"hush-hush\xff", "it is not UTF-8"), (b"\n", "it is empty"), (b"", "it is empty")]
)
def test_a_file_that_holds_no_secret_is_told_by_its_setting_and_without_what_it_holds(
    name: str, held: bytes, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(held)
    with pytest.raises(ValidationError, match=f"SALIENCE_{name.upper()}={file}: {said}; expected") as refused:
        Settings(**{name: file})  # type: ignore[arg-type]  # by name
    assert "hush" not in str(refused.value)
    assert "0xff" not in str(refused.value)


@pytest.mark.parametrize(
    "given",
    ["", "::::", ":9092", "127.0.0.1:", "kafka:abc", "kafka:0", "kafka:99999", "::1:9092", "[::1", ",", "ssl://a:1"],
)
def test_brokers_that_nobody_could_reach_are_refused_by_name(given: str) -> None:
    with pytest.raises(ValidationError, match=r"(?s)bootstrap\n.* expected host:port, comma-separated"):
        Settings(bootstrap=given)


@pytest.mark.parametrize(
    "given",
    ["127.0.0.1:9092", "kafka-1.shop:9092, kafka_2:65535", "kafka", "[::1]:9092,[fe80::1]", "[fe80::1%br-lan]:1"],
)
@pytest.mark.parametrize("end", ["", ",", " , "])
def test_brokers_are_taken_by_name_or_address_and_as_they_are_given(given: str, end: str) -> None:
    assert Settings(bootstrap=given + end).bootstrap == given


@pytest.mark.parametrize("name", ["web_token", "seal_secret"])
def test_a_secret_that_is_given_twice_is_refused_by_both_names(name: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("of-the-file\n")
    said = f"SALIENCE_{name.upper()} and SALIENCE_{name.upper()}_FILE are both set; expected one of them"
    with pytest.raises(ValidationError, match=said) as refused:
        Settings(**{name: "hush-hush", f"{name}_file": file})  # type: ignore[arg-type]  # by name
    assert "hush-hush" not in str(refused.value)


@pytest.mark.parametrize(("name", "value"), [("late_ms", 10**19), ("model_trial_s", float("inf"))])
def test_a_time_without_end_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: value})  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.endswith(("_ms", "_bytes"))])
def test_a_time_or_a_size_that_overflows_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}\n.*less than or equal to"):
        Settings(**{name: 2**63})  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("endless", ["inf", "nan"])
def test_a_number_without_end_is_refused_since_no_json_can_tell_it(
    endless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALIENCE_MODEL_SCORE_MS_MAX", endless)
    with pytest.raises(ValidationError, match=r"model_score_ms_max\n.*finite number"):
        Settings()


def test_secrets_come_from_a_file_without_its_line_end_or_from_the_setting(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hush-hush\n")
    assert Settings(web_token_file=file).bearer_token() == "hush-hush"
    assert Settings(seal_secret_file=file).sealing_secret() == "hush-hush"
    assert Settings(seal_secret="other").sealing_secret() == "other"
    assert Settings().sealing_secret() == ""
    assert Settings().bearer_token() is None


@pytest.mark.parametrize("token", ["schlüssel", "pass’word", "abc\u200b", "two\nlines", " k2q9 "])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{token}\n", encoding="utf-8")
    file = {"web_token_file": tmp_path / "token"}
    for given in ({"web_token": token}, file, file | {"web_host": "0.0.0.0"}):
        with pytest.raises(ValidationError, match=r"SALIENCE_WEB_TOKEN.* openssl rand -hex 24") as refused:
            Settings(**given)  # type: ignore[arg-type]  # by name
        assert token.strip() not in str(refused.value)


@pytest.mark.parametrize("name", ["web_token", "seal_secret"])
def test_the_secret_of_the_example_is_refused_since_everybody_knows_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("replace me\n")
    for given in ({name: "replace me"}, {f"{name}_file": tmp_path / "secret"}):
        with pytest.raises(ValidationError, match="make one of your own: openssl rand -hex 24"):
            Settings(**given)  # type: ignore[arg-type]  # by name


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Settings(no_such_thing=1)  # type: ignore[call-arg]  # the point


def test_a_variable_that_is_almost_a_setting_is_found_and_others_of_the_prefix_are_left_alone() -> None:
    others = {"SALIENCE_REVIEWS_PORT": "tcp://10.0.0.1:9307", "SALIENCE_LAG_SERVICE_HOST": "10.0.0.1", "HOME": "/root"}
    mistyped = {"SALIENCE_SLOTSS": "3", "SALIENCE_CONSENT_PRESUMEED": "false", "SALIENCE_SSL_CA_FILE": "ca.pem"}
    assert misspelt({**others, **mistyped}) == {
        "SALIENCE_SLOTSS": "SALIENCE_SLOTS",
        "SALIENCE_CONSENT_PRESUMEED": "SALIENCE_CONSENT_PRESUMED",
    }


def test_a_setting_of_former_versions_is_told_with_the_one_that_has_taken_its_place() -> None:
    assert misspelt({"SALIENCE_CLICK_FEEDBACK": "immediate"}) == {"SALIENCE_CLICK_FEEDBACK": "SALIENCE_CLICK_WAIT_MS"}


def test_doctor_names_the_setting_that_a_variable_was_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIENCE_SEAL_SECRETS", "hush")
    (check,) = [one for one in checkup(Settings(bootstrap="127.0.0.1:1")) if one.name == "settings"]
    assert not check.ok
    assert check.found == "SALIENCE_SEAL_SECRETS is no setting, and has no effect"
    assert check.fix == "did you mean SALIENCE_SEAL_SECRET? salience settings tells all"


def test_the_name_of_a_setting_is_never_broken_on_a_terminal_of_eighty_columns() -> None:
    shown = CliRunner().invoke(app, ["settings"], env={"COLUMNS": "80"}).output
    broken = [name for name in Settings.model_fields if f"SALIENCE_{name.upper()} " not in shown]
    assert not broken
    assert max(map(len, shown.splitlines())) <= 80
