"""Every setting, its default, its bound and the reason: ``deploy/SETTINGS.md`` is made from this class."""

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
from scoring.rows import RING_SIZE, USERS_MAX
from streams.connection import GivenPath, Security, check_bootstrap, check_file

Guarantee = Literal["exactly_once", "at_least_once"]

PLACEHOLDER = "replace me"
"""What stands for every secret in `deploy/k8s/secrets.yaml.example`: everybody knows it."""
NEAR = 0.85
"""From this share of common letters on, a variable is a misspelt setting: a few letters are wrong, no whole word."""
FORMER = {"CLICK_FEEDBACK": "CLICK_WAIT_MS"}
"""What has taken the place of a setting."""
CENTURY_MS = 100 * 365 * 86_400_000
"""A longer time is a mistake, and added to today's time may not fit in 64 bits."""
BYTES_MAX = 2**63 - 1


class Settings(BaseSettings):
    """Read from the environment, ``SALIENCE_<NAME>``; command-line options come before it."""

    model_config = SettingsConfigDict(
        env_prefix="SALIENCE_", frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    bootstrap: Annotated[str, AfterValidator(check_bootstrap)] = Field(
        "127.0.0.1:9092", description="Kafka brokers, host:port, comma-separated."
    )
    topic_prefix: str = Field("", description="Prefix of every topic name: shops may share a cluster, but not a group.")
    group: str = Field("salience", description="Consumer group of one shop's workers; each shop needs its own.")
    instance_id: str | None = Field(None, description="Static membership: one id per live process.")
    guarantee: Guarantee = Field("exactly_once", description="at_least_once: for brokers without transactions.")
    home: Path = Field(Path(".salience"), description="Folder of this machine's brokers, snapshots and logs.")
    model: Path | None = Field(None, description="Folder of a model's manifest.json; default: the demo shop's.")

    text: bool = Field(
        False,
        description="Compute title vectors for later models (extra text): 2 KB and once 6 ms per ad. "
        "Always on if the first model needs them.",
    )
    model_score_ms_max: float = Field(
        10.0, gt=0, description="A pushed model that takes longer for 100 candidates of one person is refused."
    )
    model_trial_bytes: int = Field(
        1_073_741_824,
        ge=536_870_912,
        le=BYTES_MAX,
        description="Address space of the process that tries a pushed model: briefly, on top of the worker's memory.",
    )
    model_trial_s: float = Field(60.0, ge=1, le=86_400, description="A pushed model must pass its trial within this.")

    session_timeout_ms: int = Field(
        10_000, ge=1_000, le=CENTURY_MS, description="A silent worker loses its lanes after this."
    )
    heartbeat_ms: int = Field(2_000, ge=100, le=CENTURY_MS, description="Well below a third of the session timeout.")
    rebalance_timeout_ms: int = Field(30_000, ge=1_000, le=CENTURY_MS, description="Above the revoke deadline.")
    revoke_deadline_ms: int = Field(
        8_000, ge=100, le=CENTURY_MS, description="A revoked lane finishes its slice within this or aborts it."
    )
    stop_deadline_ms: int = Field(
        10_000, ge=100, le=CENTURY_MS, description="A stop waits this long for running slices."
    )
    transaction_timeout_ms: int = Field(
        15_000, ge=1_000, le=CENTURY_MS, description="How long a dead lane's transaction blocks readers."
    )
    slice_deadline_ms: int = Field(
        12_000,
        ge=100,
        le=CENTURY_MS,
        description="A slice must end within this, since an unreachable broker gives no error; below the "
        "transaction timeout.",
    )
    first_start: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a lane without a lane row begins."
    )

    lanes_max: int = Field(
        64, ge=1, description="Lanes per worker: each has a producer with connections to every broker."
    )
    lanes_in_step: int = Field(
        4, ge=1, le=64, description="Lanes with a running slice: one computes, the others await delivery."
    )
    slice_records: int = Field(
        2_000, ge=1, le=100_000, description="Records per slice: bounds latency, transaction and memory."
    )
    slice_records_unscored: int = Field(
        10_000, ge=1, le=100_000, description="The same without scoring, where a slice is a tenth of the work."
    )
    queue_records: int = Field(
        10_000, ge=1, description="Records queued per lane and topic; fetching pauses at the bound."
    )
    queue_bytes: int = Field(16_777_216, ge=65_536, le=BYTES_MAX, description="Bytes queued per lane and topic.")
    rows_per_lane_max: int = Field(
        USERS_MAX,
        ge=1,
        description="Users per lane: 3.2 GB of rows and index; and as many watermarks of erased users: 0.6 GB.",
    )
    control_entries_max: int = Field(
        1_000_000, ge=1, description="Keys of the control topic, mostly consents: 0.6 GB in every worker."
    )
    batch_bytes: int = Field(
        900_000,
        ge=524_288,
        le=BYTES_MAX,
        description="Bytes per produced batch: below the broker's message.max.bytes, above any record.",
    )
    fetch_wait_ms: int = Field(
        100, ge=1, le=CENTURY_MS, description="How long a broker may hold a fetch while it has no records."
    )
    wait_other_topic_ms: int = Field(
        10,
        ge=0,
        le=CENTURY_MS,
        description="How long a caught-up lane waits for older records of the other topic; adds to latency.",
    )
    time_tolerance_ms: int = Field(
        300_000, ge=0, le=CENTURY_MS, description="An event further in the future than this is a dead letter."
    )

    stall_ms: int = Field(
        60_000,
        ge=1_000,
        le=CENTURY_MS,
        description="The worker ends if a lane with records to read makes no progress for this long.",
    )
    silence_ms: int = Field(
        30_000,
        ge=4_000,
        le=CENTURY_MS,
        description="The worker ends if its poll or event loop is silent this long, rebalances excepted.",
    )
    rebalance_limit_ms: int = Field(
        300_000,
        ge=10_000,
        le=CENTURY_MS,
        description="A worker that gets no lanes from the group for this long ends and joins anew.",
    )
    web_host: str = Field("127.0.0.1", description="Address of /healthz and /readyz; beyond loopback, set a token.")
    web_port: int = Field(0, ge=0, le=65_535, description="Their port; 0 takes a free one, which is logged.")
    web_token: SecretStr | None = Field(None, description="Bearer token that every request must carry.")
    web_token_file: GivenPath | None = Field(None, description="File with that token, instead.")
    late_ms: int = Field(
        604_800_000,
        ge=0,
        le=CENTURY_MS,
        description="An event older than its lane's time by more than this goes to late-events. A week is the longer "
        "half-life of interest and the input topics' retention.",
    )
    impressions_per_minute: int = Field(
        3_000, ge=1, le=COUNT_MAX, description="Per user; more are filtered (burst): no person sees 50 per second."
    )
    actions_per_minute: int = Field(
        300,
        ge=1,
        le=COUNT_MAX,
        description="Clicks, views, carts and purchases per user; more are filtered (burst).",
    )
    impressions_per_day: int = Field(50_000, ge=1, le=COUNT_MAX, description="Per user; more are filtered (bot).")
    actions_per_day: int = Field(10_000, ge=1, le=COUNT_MAX, description="Per user; more are filtered (bot).")
    unshown_per_day: int = Field(
        50,
        ge=0,
        le=COUNT_MAX,
        description="Actions per user on impressions that never arrived; more are filtered (unshown).",
    )

    traces: bool = Field(False, description="OpenTelemetry spans of slices (extra trace), sent where OTEL_* says.")

    scoring: bool = Field(True, description="False: state only; nothing is placed, charged or learned of clicks.")
    rules: GivenPath | None = Field(
        None, description="YAML file of the market's rules: caps, exclusions, auction, diversity; salience rules check."
    )
    seal_secret: SecretStr = Field(
        SecretStr(""),
        description="Signs prices, so that nobody else can forge one; the same for all workers.",
    )
    seal_secret_file: GivenPath | None = Field(None, description="File with that secret, instead.")
    slots: int = Field(
        10,
        ge=1,
        le=RING_SIZE,
        description=f"Ads per placement; a person's newest {RING_SIZE} are remembered and charged.",
    )
    candidates: int = Field(100, ge=1, le=1_000, description="Ads scored per placement.")
    fresh_share: float = Field(0.05, ge=0, le=1, description="Share of candidates that are the newest ads.")
    random_share: float = Field(0.10, ge=0, le=1, description="Share of candidates drawn at random.")
    control_share: float = Field(0.05, ge=0, le=1, description="Share of users in the control arm, ranked at random.")
    holdout_share: float = Field(0.0, ge=0, le=1, description="Share of users kept out of all experiments.")
    receipts_share: float = Field(
        1.0, ge=0, le=1, description="Share of placements with a receipt; the others cannot be explained later."
    )
    temperature: float = Field(0.0, ge=0, le=10, description="Plackett-Luce temperature over log eCPM; 0 is greedy.")
    explore: Explore = Field(
        "plackett-luce", description="thompson or linucb: try ads that the click layer knows little about."
    )
    ucb_alpha: float = Field(
        UCB_ALPHA, ge=0, le=10, description="Standard errors that linucb adds to an ad's click rate; 0 adds none."
    )
    click_layer: bool = Field(
        True, description="Learn online from every outcome: calibrate click rates, and tell models how ads are clicked."
    )
    click_window_ms: int = Field(
        600_000, ge=1_000, le=86_400_000, description="A click counts for an impression if it follows within this."
    )
    click_pending_max: int = Field(
        200_000, ge=100, le=10_000_000, description="Impressions per lane whose outcome is open: 152 bytes each."
    )
    click_wait_ms: int = Field(
        10_000,
        ge=0,
        le=86_400_000,
        description="An impression without a click is learned as a non-click after this; a later click undoes that.",
    )
    click_sharing: bool = Field(
        True, description="Serve with what all lanes' click layers have learned, not only the lane's own."
    )
    click_negatives: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of non-clicks learned, each weighted up to match. On KuaiRand, half of them cost at most "
        ".0004 of log loss, a tenth .0012 to .0019.",
    )
    placement_ttl_ms: int = Field(
        600_000, ge=1, le=365 * 86_400_000, description="A placement is valid this long; a year at most."
    )
    idle_ttl_ms: int = Field(
        90 * 86_400_000,
        ge=1,
        le=CENTURY_MS,
        description="A user without events this long, in stream time, is forgotten.",
    )
    consent_presumed: bool = Field(
        True, description="Whether silence means consent: false where the law requires opt-in."
    )
    erased_kept_ms: int = Field(
        60 * 86_400_000,
        ge=1,
        le=CENTURY_MS,
        description="How long erased users' watermarks stay, in stream time: longer than any topic keeps events.",
    )
    snapshot_every_ms: int = Field(60_000, ge=100, le=CENTURY_MS, description="Interval of a lane's local snapshots.")

    @property
    def cleaning(self) -> Rules:
        """The limits beyond which events do not count as interest."""
        return Rules(
            late_ms=self.late_ms,
            per_minute=(self.impressions_per_minute, self.actions_per_minute),
            per_day=(self.impressions_per_day, self.actions_per_day),
            unshown_per_day=self.unshown_per_day,
        )

    @property
    def records_per_slice(self) -> int:
        """Records per slice, with or without scoring."""
        return self.slice_records if self.scoring else self.slice_records_unscored

    @field_validator("group", "instance_id", "home", "model", "web_host", mode="before")
    @classmethod
    def _empty_is_not_set(cls, given: Any) -> Any:
        """An empty value means the default. As a name, it would be one for all workers, or a group without rights; as a
        path, the working folder; as an address, every one there is.

        Only where the default is as safe: for other settings, an unfilled variable would go unnoticed.
        """
        if given == "":
            raise PydanticUseDefault
        return given

    @model_validator(mode="after")
    def _deadlines_fit(self) -> Self:
        """Each pair: the shorter deadline, the longer one, and the failure if they are swapped."""
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
        """Only the click layer knows an ad's history; without it, every ad would stay new for ever."""
        if self.explore != "plackett-luce" and not self.click_layer:
            raise ValueError(
                f"SALIENCE_EXPLORE={self.explore} explores what the click layer does not know, so "
                "SALIENCE_CLICK_LAYER=true is expected; or SALIENCE_EXPLORE=plackett-luce with a temperature"
            )
        return self

    @model_validator(mode="after")
    def _secrets_are_given_once(self) -> Self:
        """A secret comes from a setting or its file: of two, one would be ignored without notice. Empty means none.

        Files are checked before anything runs, while the error can still name the setting.
        """
        for name in ("web_token", "seal_secret"):
            given, file = getattr(self, name), getattr(self, f"{name}_file")
            if given and file is not None:
                setting = f"SALIENCE_{name.upper()}"
                raise ValueError(f"{setting} and {setting}_FILE are both set; expected one of them")
            check_file(f"{name}_file", file, secret=True)
        self.sealing_secret()
        return self

    @model_validator(mode="after")
    def _web_is_guarded(self) -> Self:
        """Beyond loopback anybody can reach the server, so it needs a token."""
        if self.bearer_token() is None and not is_loopback(self.web_host):
            raise ValueError(
                f"SALIENCE_WEB_HOST={self.web_host} is not loopback, so SALIENCE_WEB_TOKEN is expected, "
                "or SALIENCE_WEB_TOKEN_FILE: a token of your own, such as: openssl rand -hex 24"
            )
        return self

    def bearer_token(self) -> str | None:
        """The web server's token, from the setting or its file; None where there is none.

        Raises `ValueError` for a token that cannot be sent as a header.
        """
        token = _secret(self.web_token, self.web_token_file)
        if not (token.isascii() and token.isprintable() and token == token.strip()):
            raise ValueError(
                "SALIENCE_WEB_TOKEN, or its file, has characters that not every client can send; expected ASCII alone, "
                "without blanks around it, such as: openssl rand -hex 24"
            )
        return token or None

    def sealing_secret(self) -> str:
        """The secret that seals prices, from the setting or its file; "" where there is none."""
        return _secret(self.seal_secret, self.seal_secret_file)


def _secret(given: SecretStr | None, file: Path | None) -> str:
    """The secret, from its file without the last line end, or as given. Raises `ValueError` for `PLACEHOLDER`."""
    secret = given.get_secret_value() if given is not None else ""
    if file is not None:
        secret = file.read_text(encoding="utf-8").rstrip("\r\n")
    if secret.strip() == PLACEHOLDER:
        raise ValueError(f"a secret is {PLACEHOLDER!r}, as in the example; make one of your own: openssl rand -hex 24")
    return secret


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def misspelt(environment: Mapping[str, str]) -> dict[str, str]:
    """Misspelt and former variables, which have no effect, each with the setting that is meant.

    Other variables with the prefix may be legitimate: Kubernetes makes some per Service, such as SALIENCE_LAG_PORT.
    """
    prefix = Settings.model_config["env_prefix"]
    known = [name.upper() for name in Settings.model_fields | Security.model_fields]
    names = (name.removeprefix(prefix) for name in map(str.upper, environment) if name.startswith(prefix))
    near = {name: get_close_matches(FORMER.get(name, name), known, 1, NEAR) for name in names if name not in known}
    return {prefix + name: prefix + found[0] for name, found in near.items() if found}


def table() -> str:
    """All settings as the Markdown of ``deploy/SETTINGS.md``."""
    lines = [
        "# Settings",
        "",
        "From the environment, or from a command's options. Every queue, memory and record of a worker has a bound,",
        "and it is one of these. Made by `salience settings --markdown`.",
        "",
        "An empty variable counts as not set for `SALIENCE_GROUP`, `SALIENCE_INSTANCE_ID`, `SALIENCE_HOME`,",
        "`SALIENCE_MODEL`, `SALIENCE_WEB_HOST` and settings that are empty by default. For numbers, choices, rules and",
        "files, an empty value is refused: else a value that someone forgot to fill in, such as a token's file or",
        "whether consent is presumed, would go unnoticed.",
        "",
        "| setting | default | why |",
        "|---|---|---|",
    ]
    for name, field in (Settings.model_fields | Security.model_fields).items():
        default = "" if field.default is None else f"`{field.default}`" if str(field.default) else "empty"
        lines.append(f"| `SALIENCE_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"
