"""Every setting, its default, its bound and the reason: the table in the README is made from this class."""

from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticUseDefault
from pydantic_settings import BaseSettings, SettingsConfigDict

from scoring.cleaning import COUNT_MAX, Rules
from scoring.exploration import UCB_ALPHA, Explore
from scoring.rows import USERS_MAX
from streams.connection import GivenPath, Security, check_bootstrap, check_file

Guarantee = Literal["exactly_once", "at_least_once"]


NEAR = 0.85
"""Share of letters in common from which on a variable was meant for a setting: a few are wrong, and no word is."""


CENTURY_MS = 100 * 365 * 86_400_000
"""Any longer time is a slip, and may not fit in 64 bits once it is added to the time of today."""
BYTES_MAX = 2**63 - 1


class Settings(BaseSettings):
    """Read from the environment, ``SALIENCE_<NAME>``; command-line options come before it."""

    model_config = SettingsConfigDict(
        env_prefix="SALIENCE_", frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    bootstrap: Annotated[str, AfterValidator(check_bootstrap)] = Field(
        "127.0.0.1:9092", description="Kafka brokers, host:port, comma-separated."
    )
    topic_prefix: str = Field("", description="Put before every topic name: two shops share a cluster, not a group.")
    group: str = Field("salience", description="Consumer group of one shop's workers; another shop's has another name.")
    instance_id: str | None = Field(None, description="Static membership: one id per live process.")
    guarantee: Guarantee = Field("exactly_once", description="Or at_least_once, where the broker has no transactions.")
    home: Path = Field(Path(".salience"), description="Brokers, snapshots and logs of this machine.")
    model: Path | None = Field(None, description="Folder of a model's manifest.json; the demo shop's where not given.")

    text: bool = Field(
        False,
        description="Vectors of titles for a model to come (extra text): 2 KB and once 6 ms an ad. "
        "A first model that asks for them has them anyway.",
    )
    model_score_ms_max: float = Field(
        10.0, gt=0, description="A pushed model that takes longer for 100 candidates of one person is refused."
    )
    model_trial_bytes: int = Field(
        1_073_741_824,
        ge=536_870_912,
        le=BYTES_MAX,
        description="Address space of the process that tries a pushed model: memory beside the worker's, for a moment.",
    )
    model_trial_s: float = Field(
        60.0, ge=1, le=86_400, description="A pushed model must have shown what it can by then."
    )

    session_timeout_ms: int = Field(
        10_000, ge=1_000, le=CENTURY_MS, description="A silent worker loses its lanes after this."
    )
    heartbeat_ms: int = Field(2_000, ge=100, le=CENTURY_MS, description="Well below a third of the session timeout.")
    rebalance_timeout_ms: int = Field(30_000, ge=1_000, le=CENTURY_MS, description="Above the revoke deadline.")
    revoke_deadline_ms: int = Field(
        8_000, ge=100, le=CENTURY_MS, description="A revoked lane finishes its slice within this or aborts it."
    )
    stop_deadline_ms: int = Field(10_000, ge=100, le=CENTURY_MS, description="How long a stop waits for lanes in step.")
    transaction_timeout_ms: int = Field(
        15_000, ge=1_000, le=CENTURY_MS, description="A dead lane's transaction blocks readers this long."
    )
    slice_deadline_ms: int = Field(
        12_000,
        ge=100,
        le=CENTURY_MS,
        description="Below the transaction timeout: an unreachable broker gives no error.",
    )
    first_start: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a lane without a lane row begins."
    )

    lanes_max: int = Field(
        64, ge=1, description="Lanes per worker: each has a producer with connections to every broker."
    )
    lanes_in_step: int = Field(
        4, ge=1, le=64, description="Lanes in step at once: one computes, others await delivery."
    )
    slice_records: int = Field(
        2_000, ge=1, le=100_000, description="Records per slice: bounds latency, transaction and memory."
    )
    slice_records_unscored: int = Field(
        10_000, ge=1, le=100_000, description="The same without scoring: a slice is a tenth of the work then."
    )
    queue_records: int = Field(
        10_000, ge=1, description="Records queued per lane and topic; a full lane is not fetched."
    )
    queue_bytes: int = Field(16_777_216, ge=65_536, le=BYTES_MAX, description="Bytes queued per lane and topic.")
    rows_per_lane_max: int = Field(
        USERS_MAX,
        ge=1,
        description="Users per lane, 3.2 GB of rows and index; and as many watermarks of the forgotten, 0.6 GB.",
    )
    control_entries_max: int = Field(
        1_000_000, ge=1, description="Keys of the control topic, consents above all: 0.6 GB in every worker."
    )
    batch_bytes: int = Field(
        900_000,
        ge=524_288,
        le=BYTES_MAX,
        description="Bytes per produced batch, below the broker's message.max.bytes; records have to fit.",
    )
    fetch_wait_ms: int = Field(
        100, ge=1, le=CENTURY_MS, description="How long a broker may hold a fetch that has nothing to give."
    )
    wait_other_topic_ms: int = Field(
        10,
        ge=0,
        le=CENTURY_MS,
        description="How long a caught-up lane waits for the other topic's older records; part of latency.",
    )
    time_tolerance_ms: int = Field(
        300_000, ge=0, le=CENTURY_MS, description="An event further in the future than this is a dead letter."
    )

    stall_ms: int = Field(
        60_000,
        ge=1_000,
        le=CENTURY_MS,
        description="A lane that stands still this long with records to read ends the worker.",
    )
    silence_ms: int = Field(
        30_000,
        ge=4_000,
        le=CENTURY_MS,
        description="A poll or event loop that is silent this long ends it; rebalances excepted.",
    )
    rebalance_limit_ms: int = Field(
        300_000,
        ge=10_000,
        le=CENTURY_MS,
        description="Without lanes from the group this long, a worker ends and joins anew.",
    )
    web_host: str = Field("127.0.0.1", description="Address of /healthz and /readyz; beyond loopback with a token.")
    web_port: int = Field(0, ge=0, le=65_535, description="Their port; 0 takes a free one, which the log tells.")
    web_token: SecretStr | None = Field(None, description="Bearer token that every request must carry.")
    web_token_file: GivenPath | None = Field(None, description="Or a file that holds it.")
    late_ms: int = Field(
        604_800_000,
        ge=0,
        le=CENTURY_MS,
        description="An event this much older than its lane's time goes to late-events: the longer "
        "half-life of an interest, and what the input topics keep.",
    )
    impressions_per_minute: int = Field(
        3_000, ge=1, le=COUNT_MAX, description="Of one user; more are filtered (burst): 50 a second are no person's."
    )
    actions_per_minute: int = Field(
        300,
        ge=1,
        le=COUNT_MAX,
        description="Clicks, views, carts and purchases of one user; more are filtered (burst).",
    )
    impressions_per_day: int = Field(50_000, ge=1, le=COUNT_MAX, description="Of one user; more are filtered (bot).")
    actions_per_day: int = Field(10_000, ge=1, le=COUNT_MAX, description="Of one user; more are filtered (bot).")
    unshown_per_day: int = Field(
        50,
        ge=0,
        le=COUNT_MAX,
        description="Actions of one user on impressions never seen; more are filtered (unshown).",
    )

    traces: bool = Field(False, description="OpenTelemetry spans of slices (the extra trace); OTEL_* says where to.")

    scoring: bool = Field(True, description="False: state only, no placements.")
    rules: GivenPath | None = Field(
        None, description="YAML file of the market's rules: caps, exclusions, auction, diversity; salience rules check."
    )
    seal_secret: SecretStr = Field(
        SecretStr(""),
        description="The same for all workers: nobody else can then make a price to be charged.",
    )
    seal_secret_file: GivenPath | None = Field(None, description="Or a file that holds it.")
    slots: int = Field(10, ge=1, le=100, description="Ads per placement.")
    candidates: int = Field(100, ge=1, le=1_000, description="Ads scored per placement.")
    fresh_share: float = Field(0.05, ge=0, le=1, description="Share of candidates that are the newest ads.")
    random_share: float = Field(0.10, ge=0, le=1, description="Share of candidates drawn at random.")
    control_share: float = Field(0.05, ge=0, le=1, description="Share of users in the control arm, ranked at random.")
    holdout_share: float = Field(0.0, ge=0, le=1, description="Share of users whom no experiment may touch.")
    receipts_share: float = Field(
        1.0, ge=0, le=1, description="Share of placements that leave a receipt; of others nobody can tell why they are."
    )
    temperature: float = Field(0.0, ge=0, le=10, description="Plackett-Luce temperature over log eCPM; 0 is greedy.")
    explore: Explore = Field(
        "plackett-luce", description="Or thompson, or linucb: try ads of which the click layer knows little."
    )
    ucb_alpha: float = Field(
        UCB_ALPHA, ge=0, le=10, description="Standard errors that linucb adds to an ad's click rate; 0 adds none."
    )
    click_layer: bool = Field(
        True, description="Learn online from every outcome: calibrate click rates, and tell models how ads are clicked."
    )
    click_window_ms: int = Field(
        600_000, ge=1_000, le=86_400_000, description="A click counts for an impression within this."
    )
    click_pending_max: int = Field(
        200_000, ge=100, le=10_000_000, description="Impressions per lane whose outcome is open: 152 bytes each."
    )
    click_wait_ms: int = Field(
        10_000,
        ge=0,
        le=86_400_000,
        description="An impression is learned after this, without a click as a non-click; a later one takes it back.",
    )
    click_sharing: bool = Field(
        True, description="Serve by what the click layers of all lanes have learned, not by the lane's own alone."
    )
    click_negatives: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of non-clicks learned, each counted the more. Half of KuaiRand's cost .0004 of log loss at "
        "most, a tenth .0012 to .0019.",
    )
    placement_ttl_ms: int = Field(
        600_000, ge=1, le=365 * 86_400_000, description="A placement is valid this long; a year at most."
    )
    idle_ttl_ms: int = Field(
        90 * 86_400_000, ge=1, le=CENTURY_MS, description="A user silent this long, in stream time, is forgotten."
    )
    consent_presumed: bool = Field(
        True, description="What silence means: false where the law wants people to opt in first."
    )
    erased_kept_ms: int = Field(
        60 * 86_400_000,
        ge=1,
        le=CENTURY_MS,
        description="Watermarks of the erased, in stream time: above any topic's retention.",
    )
    snapshot_every_ms: int = Field(60_000, ge=100, le=CENTURY_MS, description="Between a lane's local snapshots.")

    @property
    def cleaning(self) -> Rules:
        """What is kept from interest."""
        return Rules(
            late_ms=self.late_ms,
            per_minute=(self.impressions_per_minute, self.actions_per_minute),
            per_day=(self.impressions_per_day, self.actions_per_day),
            unshown_per_day=self.unshown_per_day,
        )

    @property
    def records_per_slice(self) -> int:
        """Records per slice of a worker that scores, or does not, as these settings say."""
        return self.slice_records if self.scoring else self.slice_records_unscored

    @field_validator("group", "instance_id", "home", "model", "web_host", mode="before")
    @classmethod
    def _empty_is_not_set(cls, given: Any) -> Any:
        """As a name it would be that of all workers, or a group's that has no rights, as a path the folder in which the
        process stands, and as an address all that there are.

        Only where the default guards as much: with others, what a variable was to be filled with would be left out.
        """
        if given == "":
            raise PydanticUseDefault
        return given

    @model_validator(mode="after")
    def _deadlines_fit(self) -> Self:
        """Deadlines that contain one another; each pair with the failure it prevents."""
        pairs = (
            ("slice_deadline_ms", "transaction_timeout_ms", "the broker would abort a slice still being delivered"),
            ("heartbeat_ms", "session_timeout_ms", "every worker would lose its lanes"),
            ("revoke_deadline_ms", "rebalance_timeout_ms", "the group would go on before the lane has let go"),
        )
        for smaller, larger, otherwise in pairs:
            if getattr(self, smaller) >= getattr(self, larger):
                raise ValueError(
                    f"SALIENCE_{smaller.upper()}={getattr(self, smaller)} must be below "
                    f"SALIENCE_{larger.upper()}={getattr(self, larger)}: else {otherwise}"
                )
        return self

    @model_validator(mode="after")
    def _exploration_learns(self) -> Self:
        """What is known of an ad is the click layer's; without it every ad would be new for ever."""
        if self.explore != "plackett-luce" and not self.click_layer:
            raise ValueError(
                f"SALIENCE_EXPLORE={self.explore} explores what the click layer does not know, so "
                "SALIENCE_CLICK_LAYER=true is expected; or SALIENCE_EXPLORE=plackett-luce with a temperature"
            )
        return self

    @model_validator(mode="after")
    def _secrets_are_given_once(self) -> Self:
        """And their files are looked at before anything runs: later it would not be said which setting is wrong.

        Of two, one would not be used, and whoever changed it would not know. An empty one is none, as everywhere.
        """
        for name in ("web_token", "seal_secret"):
            given, file = getattr(self, name), getattr(self, f"{name}_file")
            if given and file is not None:
                setting = f"SALIENCE_{name.upper()}"
                raise ValueError(f"{setting} and {setting}_FILE are both set; expected one of them")
            check_file(f"{name}_file", file, secret=True)
        return self

    @model_validator(mode="after")
    def _web_is_guarded(self) -> Self:
        """Beyond loopback anybody may ask."""
        if self.bearer_token() is None and not is_loopback(self.web_host):
            raise ValueError(
                f"SALIENCE_WEB_HOST={self.web_host} is not loopback, so SALIENCE_WEB_TOKEN is expected, "
                "or SALIENCE_WEB_TOKEN_FILE: a token of your own, such as: openssl rand -hex 24"
            )
        return self

    def bearer_token(self) -> str | None:
        """The web server's token, from the setting or its file; None where there is none.

        Raises `ValueError` for one that nobody could send as a header.
        """
        token = _secret(self.web_token, self.web_token_file)
        if not (token.isascii() and token.isprintable() and token == token.strip()):
            raise ValueError(
                "SALIENCE_WEB_TOKEN, or its file, has characters that not every client can send; expected ASCII alone, "
                "without blanks around it, such as: openssl rand -hex 24"
            )
        return token or None

    def sealing_secret(self) -> str:
        """What prices are sealed with, from the setting or its file; "" where there is none."""
        return _secret(self.seal_secret, self.seal_secret_file)


def _secret(given: SecretStr | None, file: Path | None) -> str:
    """A file's last line end is no part of it."""
    if file is not None:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    return given.get_secret_value() if given is not None else ""


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def misspelt(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that are almost settings, each with the setting it is nearest to; they have no effect.

    Others of the prefix are not ours to judge: Kubernetes makes some for every Service, such as SALIENCE_LAG_PORT.
    """
    prefix = Settings.model_config["env_prefix"]
    known = [name.upper() for name in Settings.model_fields | Security.model_fields]
    names = (name.removeprefix(prefix) for name in map(str.upper, environment) if name.startswith(prefix))
    near = {name: get_close_matches(name, known, 1, NEAR) for name in names if name not in known}
    return {prefix + name: prefix + found[0] for name, found in near.items() if found}


def table() -> str:
    """All settings as the Markdown of ``deploy/SETTINGS.md``."""
    lines = [
        "# Settings",
        "",
        "From the environment, or from a command's options. Every queue, memory and record of a worker has a bound,",
        "and it is one of these. Made by `salience settings --markdown`.",
        "",
        "A variable that is set and empty is as one that is not set for `SALIENCE_GROUP`, `SALIENCE_INSTANCE_ID`,",
        "`SALIENCE_HOME`, `SALIENCE_MODEL`, `SALIENCE_WEB_HOST` and what is empty by default. Numbers, choices, rules",
        "and files are refused: what was to be filled, such as the file of a token or whether consent is presumed,",
        "would be left out, and nobody told.",
        "",
        "| setting | default | why |",
        "|---|---|---|",
    ]
    for name, field in (Settings.model_fields | Security.model_fields).items():
        default = "" if field.default is None else f"`{field.default}`" if str(field.default) else "empty"
        lines.append(f"| `SALIENCE_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"
