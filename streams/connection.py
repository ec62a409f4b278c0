"""How every Kafka client of this process connects: encryption, identity, and where the secrets come from.

Read from the environment alone, as secrets should be: a command's ``--bootstrap`` says where to connect, this module
how. A secret comes from a variable or, better, from a file that the variable with ``_FILE`` names; none is printed.
"""

import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import structlog
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

log = structlog.get_logger()

BROKER = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+(?:%[\w.-]+)?\])(?::(?P<port>[0-9]{1,5}))?")
PORT_MAX = 65_535


class ConnectionSettingsError(ValueError):
    """No client could connect with these settings. The message names them, and never a secret."""


def check_bootstrap(given: str) -> str:
    """``given`` without a comma at its end, if it is a valid list of brokers.

    On an invalid one, clients crash, or say after seconds that nobody answers.

    Raises `ValueError`.
    """
    given = given.rstrip(" ,")  # generated lists may end with a comma
    for broker in given.split(","):
        found = BROKER.fullmatch(broker.strip())
        if not found or (found["port"] and not 0 < int(found["port"]) <= PORT_MAX):
            raise ValueError(
                f"{broker.strip()!r} is no broker; expected host:port, comma-separated, a port of 1 to {PORT_MAX} and "
                "IPv6 in brackets, such as kafka-1:9092,[::1]:9092"
            )
    return given


def _not_empty(given: Any, info: ValidationInfo) -> Any:
    """Refuse an empty path: it would mean the working directory, which nobody named.

    Treating it as unset would be no safer: the empty variable may name a safeguard, such as a secret's file or a block
    list.
    """
    if given == "":
        setting = f"SALIENCE_{info.field_name}".upper()
        raise ValueError(f"{setting} is set and empty; expected a path, or that it is not set")
    return given


GivenPath = Annotated[Path, BeforeValidator(_not_empty)]
"""A path; if it is set, it is not empty."""


def check_file(name: str, path: Path | None, *, secret: bool) -> None:
    """Read the file of a setting, if it has one, so that a bad one is reported with its setting, and not later without.

    Raises `ValueError` with the setting and the path, and never the file's content.
    """
    if path is None:
        return
    at = f"SALIENCE_{name.upper()}={path}"
    try:
        if not path.is_file():
            raise ValueError(f"{at} is no file; expected one that this process can read")
        held = path.read_bytes()
        empty = not (held.decode().rstrip("\r\n") if secret else held)  # PEM may hold comments in any encoding
    except OSError as error:
        raise ValueError(f"{at}: {error.strerror}; expected a file that this process can read") from None
    except UnicodeDecodeError:  # its text quotes the content
        raise ValueError(f"{at}: it is not UTF-8; expected a secret of UTF-8 text") from None
    if empty:
        raise ValueError(f"{at}: it is empty; expected {'a secret' if secret else 'PEM'}")


class Security(BaseSettings):
    """Encryption and identity, ``SALIENCE_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="SALIENCE_", frozen=True, extra="forbid", hide_input_in_errors=True)

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="SASL_SSL in production; without SSL, passwords' proofs and events can be read."
    )
    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        "SCRAM-SHA-512", description="SCRAM never sends the password; PLAIN does, and wants SSL."
    )
    sasl_username: str | None = Field(None, description="Who this process is to the brokers: one per role.")
    sasl_password: SecretStr | None = Field(None, description="Its password. Masked wherever settings are shown.")
    sasl_password_file: GivenPath | None = Field(
        None, description="Or a file that holds it, as Docker and Kubernetes mount secrets."
    )
    ssl_ca_file: GivenPath | None = Field(
        None, description="PEM of who signs the brokers; the system's where not given."
    )
    ssl_cert_file: GivenPath | None = Field(None, description="PEM of our certificate, where brokers ask for one.")
    ssl_key_file: GivenPath | None = Field(
        None, description="PEM of its key, not encrypted: guard it by its file mode."
    )
    ssl_check_hostname: bool = Field(
        True, description="A broker must be whom its certificate names; without it, anyone with a certificate is."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.sasl_password and self.sasl_password_file is not None:
            raise ValueError(
                "SALIENCE_SASL_PASSWORD and SALIENCE_SASL_PASSWORD_FILE are both set; expected one of them"
            )
        has_password = self.sasl_password or self.sasl_password_file is not None
        if self.authenticates and not (self.sasl_username and has_password):
            raise ValueError(
                f"SALIENCE_SECURITY_PROTOCOL={self.security_protocol} wants SALIENCE_SASL_USERNAME and "
                "SALIENCE_SASL_PASSWORD_FILE"
            )
        if not self.authenticates and (self.sasl_username or has_password):
            raise ValueError(
                f"a user or password is set but SALIENCE_SECURITY_PROTOCOL={self.security_protocol} would not use it; "
                "expected SASL_SSL"
            )
        if (self.ssl_cert_file is None) != (self.ssl_key_file is None):
            raise ValueError("SALIENCE_SSL_CERT_FILE and SALIENCE_SSL_KEY_FILE go together; one of them is missing")
        certificates = ("ssl_ca_file", "ssl_cert_file", "ssl_key_file")
        if not self.encrypts and (unused := [name for name in certificates if getattr(self, name) is not None]):
            raise ValueError(
                f"{' and '.join(f'SALIENCE_{name.upper()}' for name in unused)} set but "
                f"SALIENCE_SECURITY_PROTOCOL={self.security_protocol} would not use it; expected SSL or SASL_SSL"
            )
        for name in ("sasl_password_file", *certificates):
            check_file(name, getattr(self, name), secret=name == "sasl_password_file")
        return self

    @property
    def authenticates(self) -> bool:
        """Whether clients authenticate by SASL."""
        return self.security_protocol.startswith("SASL_")

    @property
    def encrypts(self) -> bool:
        """Whether connections are TLS."""
        return self.security_protocol.endswith("SSL")

    @property
    def password(self) -> str:
        """The password itself; "" without SASL. A line end at the end of a file is cut off."""
        if self.sasl_password_file is not None:
            return self.sasl_password_file.read_text(encoding="utf-8").rstrip("\r\n")
        return self.sasl_password.get_secret_value() if self.sasl_password is not None else ""


def security() -> Security:
    """Security of this process, from its environment. Raises `ConnectionSettingsError`."""
    try:
        return Security()
    except ValidationError as error:
        problems = (
            ": ".join(filter(None, (_setting(p["loc"]), p["msg"].removeprefix("Value error, "))))
            for p in error.errors(include_input=False, include_url=False)
        )
        raise ConnectionSettingsError("; ".join(problems)) from None


def _setting(place: tuple[int | str, ...]) -> str:
    return "_".join(("SALIENCE", *map(str, place))).upper() if place else ""


def aiokafka_options(bootstrap: str) -> dict[str, Any]:
    """Options of every aiokafka consumer, producer and admin client. Raises `ConnectionSettingsError`."""
    secure = security()
    options: dict[str, Any] = {"bootstrap_servers": bootstrap, "security_protocol": secure.security_protocol}
    if secure.encrypts:
        options["ssl_context"] = _Renewed(secure)
    if secure.authenticates:
        options |= {
            "sasl_mechanism": secure.sasl_mechanism,
            "sasl_plain_username": secure.sasl_username,
            "sasl_plain_password": secure.password,
        }
    return options


def librdkafka_options(bootstrap: str) -> dict[str, Any]:
    """The same in the names of librdkafka (confluent-kafka). Raises `ConnectionSettingsError`."""
    secure = security()
    # In small letters, as librdkafka has them: it asks the locale for those of a capital, and Turkish has another i.
    options: dict[str, Any] = {"bootstrap.servers": bootstrap, "security.protocol": secure.security_protocol.lower()}
    if secure.encrypts:
        files = {
            "ssl.ca.location": secure.ssl_ca_file,
            "ssl.certificate.location": secure.ssl_cert_file,
            "ssl.key.location": secure.ssl_key_file,
        }
        _ssl_context(secure)  # to check the files: librdkafka's error would not name the setting
        options |= {name: str(path) for name, path in files.items() if path is not None}
        options["ssl.endpoint.identification.algorithm"] = "https" if secure.ssl_check_hostname else "none"
    if secure.authenticates:
        options |= {
            "sasl.mechanisms": secure.sasl_mechanism,
            "sasl.username": secure.sasl_username,
            "sasl.password": secure.password,
        }
    return options


class _Renewed(ssl.SSLContext):
    """A TLS context by which each connection is made with what the files hold by then.

    Certificates are renewed under running processes. A client with those of its start could not connect again once they
    have expired, or once a broker has a certificate of a new authority; it would try for ever.
    """

    def __new__(cls, _: Security) -> Self:
        """A context of the client's side."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, secure: Security) -> None:
        self.check_hostname = secure.ssl_check_hostname
        self._secure = secure
        self._stamps = self._stamped()
        self._latest = _ssl_context(secure)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """A connection's TLS, as asyncio asks for it; by the former files while the new ones do not fit together."""
        if (stamps := self._stamped()) != self._stamps:
            self._stamps = stamps
            try:
                self._latest = _ssl_context(self._secure)
                log.info("certificates read again")
            except ConnectionSettingsError as error:
                log.warning("certificates have changed and cannot be used, the former ones are", error=str(error))
        return self._latest.wrap_bio(*args, **kwargs)

    def _stamped(self) -> list[tuple[int, ...]]:
        return [*map(stamp, (self._secure.ssl_ca_file, self._secure.ssl_cert_file, self._secure.ssl_key_file))]


def stamp(path: Path | None) -> tuple[int, ...]:
    """What changes when a file does; nothing for one that is not there."""
    try:
        told = path.stat() if path is not None else None
    except OSError:
        told = None
    return (told.st_ino, told.st_size, told.st_ctime_ns) if told else ()


def _ssl_context(secure: Security) -> ssl.SSLContext:
    """The TLS context. Raises `ConnectionSettingsError` where a file is not what its setting expects."""
    files = f"SALIENCE_SSL_CA_FILE={secure.ssl_ca_file}"
    try:
        context = ssl.create_default_context(cafile=secure.ssl_ca_file)
        context.check_hostname = secure.ssl_check_hostname
        if secure.ssl_cert_file is not None:
            files = f"SALIENCE_SSL_CERT_FILE={secure.ssl_cert_file} with SALIENCE_SSL_KEY_FILE={secure.ssl_key_file}"
            context.load_cert_chain(secure.ssl_cert_file, secure.ssl_key_file)
    except OSError as error:  # SSLError is one, too
        raise ConnectionSettingsError(f"{files}: {error}; expected PEM, and a key that is the certificate's") from None
    return context
