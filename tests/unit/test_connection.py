"""How clients connect: what the environment says, refused where it could not work, and secrets never shown."""

import json
import ssl
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from streams.cli import app, main
from streams.connection import ConnectionSettingsError, aiokafka_options, librdkafka_options, security

SECRET = "do-not-print-7f3a"


@pytest.fixture
def scram(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment with everything that SASL_SSL wants; the password's file."""
    password = tmp_path / "password"
    password.write_text(SECRET + "\n")
    monkeypatch.setenv("SALIENCE_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("SALIENCE_SASL_USERNAME", "worker")
    monkeypatch.setenv("SALIENCE_SASL_PASSWORD_FILE", str(password))
    return password


def test_without_settings_clients_connect_in_the_clear() -> None:
    assert aiokafka_options("b:1") == {"bootstrap_servers": "b:1", "security_protocol": "PLAINTEXT"}
    assert librdkafka_options("b:1") == {"bootstrap.servers": "b:1", "security.protocol": "plaintext"}


@pytest.mark.usefixtures("scram")
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_librdkafka_is_told_the_protocol_in_letters_that_it_knows_under_every_locale(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setenv("SALIENCE_SECURITY_PROTOCOL", protocol)
    assert librdkafka_options("b:1")["security.protocol"] == protocol.lower()
    assert aiokafka_options("b:1")["security_protocol"] == protocol


@pytest.mark.usefixtures("scram")
def test_both_libraries_get_the_same_identity_and_check_host_names() -> None:
    ours, theirs = aiokafka_options("b:1"), librdkafka_options("b:1")
    assert ours["sasl_mechanism"] == theirs["sasl.mechanisms"] == "SCRAM-SHA-512"
    assert ours["sasl_plain_username"] == theirs["sasl.username"] == "worker"
    assert ours["sasl_plain_password"] == theirs["sasl.password"] == SECRET
    assert ours["ssl_context"].check_hostname
    assert ours["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    assert theirs["ssl.endpoint.identification.algorithm"] == "https"


@pytest.mark.usefixtures("scram")
def test_the_host_name_check_is_left_out_only_when_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIENCE_SSL_CHECK_HOSTNAME", "false")
    assert not aiokafka_options("b:1")["ssl_context"].check_hostname
    assert aiokafka_options("b:1")["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    assert librdkafka_options("b:1")["ssl.endpoint.identification.algorithm"] == "none"


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("by_file", [True, False])
def test_no_way_of_showing_the_settings_prints_the_secret(
    scram: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], *, by_file: bool
) -> None:
    if not by_file:
        monkeypatch.delenv("SALIENCE_SASL_PASSWORD_FILE")
        monkeypatch.setenv("SALIENCE_SASL_PASSWORD", SECRET)
    result = CliRunner().invoke(app, ["settings", *options])
    assert result.exit_code == 0
    assert SECRET not in result.output + repr(security()) + str(security())
    if options:
        shown = json.loads(result.stdout)
        assert (shown["sasl_password_file"], shown["sasl_password"]) == (
            (str(scram), None) if by_file else (None, "**********")
        )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"SALIENCE_SASL_PASSWORD": SECRET}, "SALIENCE_SASL_PASSWORD_FILE are both set"),
        ({"SALIENCE_SASL_USERNAME": ""}, "wants SALIENCE_SASL_USERNAME"),
        ({"SALIENCE_SASL_PASSWORD_FILE": "/no/such/file"}, "SALIENCE_SASL_PASSWORD_FILE=/no/such/file is no file"),
        ({"SALIENCE_SECURITY_PROTOCOL": "PLAINTEXT"}, "expected SASL_SSL"),
        ({"SALIENCE_SECURITY_PROTOCOL": SECRET}, "SALIENCE_SECURITY_PROTOCOL"),
        ({"SALIENCE_SSL_CERT_FILE": __file__}, "go together"),
    ],
)
@pytest.mark.usefixtures("scram")
def test_what_cannot_work_is_refused_by_name_and_without_the_secret(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], named: str
) -> None:
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConnectionSettingsError, match=named) as refused:
        security()
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(("held", "said"), [(SECRET.encode() + b"\xff", "it is not UTF-8"), (b"\n", "it is empty")])
def test_a_password_file_that_holds_none_is_told_by_its_setting(scram: Path, held: bytes, said: str) -> None:
    scram.write_bytes(held)
    with pytest.raises(ConnectionSettingsError, match=f"SALIENCE_SASL_PASSWORD_FILE={scram}: {said}") as refused:
        security()
    assert SECRET not in str(refused.value)
    assert "0xff" not in str(refused.value)


@pytest.mark.parametrize("name", ["sasl_password_file", "ssl_ca_file", "ssl_cert_file", "ssl_key_file"])
@pytest.mark.usefixtures("scram")
def test_an_empty_variable_of_a_file_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SALIENCE_{name.upper()}", "")
    with pytest.raises(ConnectionSettingsError, match=f"SALIENCE_{name.upper()} is set and empty; expected a path"):
        security()


@pytest.mark.usefixtures("scram")
def test_an_empty_variable_is_no_user_where_one_is_wanted_and_as_none_where_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SALIENCE_SASL_USERNAME", "")
    with pytest.raises(ConnectionSettingsError, match="SASL_SSL wants SALIENCE_SASL_USERNAME and"):
        security()
    monkeypatch.setenv("SALIENCE_SECURITY_PROTOCOL", "PLAINTEXT")
    monkeypatch.delenv("SALIENCE_SASL_PASSWORD_FILE")
    assert aiokafka_options("b:1") == {"bootstrap_servers": "b:1", "security_protocol": "PLAINTEXT"}


@pytest.mark.usefixtures("scram")
def test_an_empty_variable_is_no_password_and_gives_way_to_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIENCE_SASL_PASSWORD", "")
    assert security().password == SECRET
    monkeypatch.delenv("SALIENCE_SASL_PASSWORD_FILE")
    with pytest.raises(ConnectionSettingsError, match="SASL_SSL wants SALIENCE_SASL_USERNAME and"):
        security()
    monkeypatch.setenv("SALIENCE_SECURITY_PROTOCOL", "PLAINTEXT")
    monkeypatch.delenv("SALIENCE_SASL_USERNAME")
    assert aiokafka_options("b:1") == {"bootstrap_servers": "b:1", "security_protocol": "PLAINTEXT"}


@pytest.mark.parametrize("options", [aiokafka_options, librdkafka_options])
@pytest.mark.parametrize("kind", ["CA", "CERT"])
def test_a_certificate_that_is_no_pem_is_told_by_its_setting(
    scram: Path, monkeypatch: pytest.MonkeyPatch, options: Callable[[str], object], kind: str
) -> None:
    monkeypatch.setenv(f"SALIENCE_SSL_{kind}_FILE", str(scram))
    if kind == "CERT":
        monkeypatch.setenv("SALIENCE_SSL_KEY_FILE", str(scram))
    with pytest.raises(ConnectionSettingsError, match=f"SALIENCE_SSL_{kind}_FILE={scram}.*expected PEM") as refused:
        options("b:1")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_a_certificate_that_the_protocol_would_not_use_is_refused(
    scram: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setenv("SALIENCE_SECURITY_PROTOCOL", protocol)
    monkeypatch.setenv("SALIENCE_SSL_CA_FILE", str(scram))
    if protocol == "PLAINTEXT":
        monkeypatch.delenv("SALIENCE_SASL_USERNAME")
        monkeypatch.delenv("SALIENCE_SASL_PASSWORD_FILE")
    with pytest.raises(ConnectionSettingsError, match=r"SALIENCE_SSL_CA_FILE .*; expected SSL or SASL_SSL"):
        security()


def test_a_command_ends_with_status_2_and_the_setting_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SALIENCE_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setattr("sys.argv", ["salience", "lanes", "show", "--bootstrap", "127.0.0.1:1"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "SALIENCE_SASL_USERNAME" in capsys.readouterr().err


@pytest.fixture
def servers(tmp_path: Path) -> list[Path]:
    """Two servers' files: a key and a certificate of localhost that is its own authority, which the other's is not."""
    made = []
    for name in ("former", "renewed"):
        made.append(file := tmp_path / name)
        ask = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        ask += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
        subprocess.run([*ask, "-keyout", str(file), "-out", f"{file}.crt"], check=True, capture_output=True)
        file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return made


def connect(client: ssl.SSLContext, server: Path) -> None:
    """Shake hands with a server that has these files."""
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(server)
    to, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, to, server_hostname="localhost")
    theirs = there.wrap_bio(to, back, server_side=True)
    for side in (ours, theirs, ours):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert ours.version()


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, servers: list[Path]) -> Path:
    """The file of who signs the brokers' certificates, which holds the former."""
    monkeypatch.setenv("SALIENCE_SECURITY_PROTOCOL", "SSL")
    monkeypatch.setenv("SALIENCE_SSL_CA_FILE", str(file := tmp_path / "ca.pem"))
    file.write_text(servers[0].read_text())
    return file


def test_a_client_connects_again_by_what_its_files_hold_by_then(authority: Path, servers: list[Path]) -> None:
    former, renewed = servers
    context = aiokafka_options("b:1")["ssl_context"]
    connect(context, former)
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(context, renewed)
    authority.write_text(renewed.read_text())
    connect(context, renewed)
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(context, former)


def test_a_client_connects_by_its_former_files_while_they_are_renewed(authority: Path, servers: list[Path]) -> None:
    former, renewed = servers
    context = aiokafka_options("b:1")["ssl_context"]
    with capture_logs() as said:
        for half in ("", "-----BEGIN"):
            authority.write_text(half)
            connect(context, former)
            connect(context, former)
        authority.unlink()
        connect(context, former)
        authority.write_text(renewed.read_text())
        connect(context, renewed)
    assert [line["log_level"] for line in said] == ["warning", "warning", "warning", "info"]
    assert "SALIENCE_SSL_CA_FILE" in said[0]["error"]
