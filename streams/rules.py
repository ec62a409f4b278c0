"""The market's rules, declared by the shop in one YAML file. A bad file is refused, with all its errors at once."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from scoring.attribution import Attribution, Spread
from scoring.auction import Rule
from scoring.ids import id64
from scoring.market import Cap, Terms
from scoring.rows import RING_SIZE
from scoring.units import DAY_MS, MINUTE_MS
from scoring.variety import Method
from streams.mendable import MendableError

DIVERSITY = 0.2
"""Strength if a file asks for diversity without one: it costs 0.3 % of NDCG (``salience simulate diversity``)."""
NAMES_MAX = 10_000
"""Names in a list: each is compared with every candidate."""
EXAMINED_MIN = 1e-6
"""Least examination probability of a slot: if hardly anybody looks at it, a missing click tells nothing."""

MERGE, NUMBERS = "tag:yaml.org,2002:merge", ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
NOT_AS_WRITTEN = re.compile(r"[-+]?0[0-9_]+|.*:.*")
"""Numbers that YAML 1.1 reads as octal (integers with a leading 0) or in base 60 (with colons, fractions too)."""

EXAMPLE = """\
auction: gsp                    # first, gsp (generalised second price) or vcg; one's own ads are bid against, too
reserve_micros: 1000            # for whatever an ad bids for: a click, a thousand impressions, a purchase, a second of
                                # viewing; who bids less is not shown, but for who pays by attention_micros alone
caps:                           # most impressions of one ad, campaign or advertiser to one person
  - {scope: campaign, most: 3, minutes: 30}
block: {ads: [ad-7], categories: [weapons], advertisers: [arco]}  # categories: what stands before an ad's first /,
                                # written as there (not Weapons), with all below it
separate: category              # neighbours differ in category, brand, campaign or advertiser, where they can
competitors: [[Arco, Belle]]    # brands of which a placement shows one advertiser's
pinned: {ad-9: 0}               # ad: slot
diversity: {method: mmr, strength: 0.2}  # or dpp
category_share: 0.5             # of a placement's slots, the most that one category may have
fairness: {among: advertiser, strength: 1.0}  # or category: exposure as worth deserves, over time
examination: [1, 0.9, 0.82]     # how likely slots are looked at, for prices and click rates; else it is learned
conversion: 0.02                # purchases per click, where nothing is known better
viewed_s: 2.0                   # seconds that an impression is looked at
windows: {days: 7, campaigns: {spring: 1}}  # so long after it was shown, an ad that was clicked is owed a purchase
attribution: {spread: position, half_life_days: 2, campaigns: {spring: time}}  # beside last touch, over all clicked ads
                                # in the order in which they were shown: by position, by time, or as learned
"""
"""An example of all that a file may say; each line may be left out."""

Name = Annotated[str, Field(min_length=1, max_length=256)]
Names = Annotated[list[Name], Field(max_length=NAMES_MAX)]


CAP_MINUTES = 30
"""A longer cap is warned of. Half an hour is a visit: whoever stays longer, or comes again, is easily shown five
placements of ten ads, and that is all that a row remembers."""


class RulesError(MendableError, ValueError):
    """A rules file that cannot be followed: every error in it, one a line."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Cap(_Part):
    scope: Literal["ad", "campaign", "advertiser"]
    most: Annotated[int, Field(ge=1, le=50)]  # the ring counts no further
    minutes: Annotated[int, Field(ge=1, le=43_200)]


def _top_level(category: str) -> str:
    """Refuse what no ad's top level equals: the catalogue keeps no other level to block by."""
    if "/" in category:
        raise ValueError(
            "expected the top level of a category, what stands before its first /, which blocks all below it; name "
            "that, or block advertisers or ads"
        )
    return category


class _Block(_Part):
    ads: Names = []
    categories: Annotated[list[Annotated[Name, AfterValidator(_top_level)]], Field(max_length=NAMES_MAX)] = []
    advertisers: Names = []


class _Diversity(_Part):
    method: Method = "mmr"
    strength: Annotated[float, Field(ge=0, le=10)] = DIVERSITY


class _Fairness(_Part):
    among: Literal["advertiser", "category"] = "advertiser"
    strength: Annotated[float, Field(ge=0, le=10)] = 1.0


class _Windows(_Part):
    days: Annotated[float, Field(gt=0, le=90)] = 7.0
    campaigns: Annotated[dict[Name, Annotated[float, Field(gt=0, le=90)]], Field(max_length=NAMES_MAX)] = {}


def _falls(chances: list[float]) -> list[float]:
    if chances != sorted(chances, reverse=True):
        raise ValueError("expected no slot to be looked at more than the one above it")
    return chances


class _Attribution(_Part):
    spread: Spread = "position"
    half_life_days: Annotated[float, Field(gt=0.01, le=90)] = 2.0
    campaigns: Annotated[dict[Name, Spread], Field(max_length=NAMES_MAX)] = {}


class Rules(_Part):
    """The file. What it leaves out is as without a file."""

    auction: Rule = "gsp"
    reserve_micros: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    caps: Annotated[list[_Cap], Field(max_length=16)] = []
    block: _Block = _Block()
    separate: Literal["category", "brand", "campaign", "advertiser"] | None = None
    competitors: Annotated[list[Names], Field(max_length=100)] = []
    pinned: dict[Name, Annotated[int, Field(ge=0, le=99)]] = {}
    diversity: _Diversity | None = None
    category_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    fairness: _Fairness | None = None
    examination: Annotated[
        list[Annotated[float, Field(ge=EXAMINED_MIN, le=1)]], Field(max_length=100), AfterValidator(_falls)
    ] = []
    conversion: Annotated[float, Field(ge=0, le=1)] = 0.02
    viewed_s: Annotated[float, Field(ge=0, le=3_600)] = 2.0
    windows: _Windows = _Windows()
    attribution: _Attribution = _Attribution()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Rules":
        if wrong := list(self._contradictions()):
            raise ValueError("\n".join(wrong))
        return self

    def _contradictions(self) -> Iterator[str]:
        for slot, count in Counter(self.pinned.values()).items():
            if count > 1:
                names = sorted(ad for ad, at in self.pinned.items() if at == slot)
                yield f"pinned: {', '.join(names)} all have slot {slot}; expected one ad a slot"
        for ad in sorted(self.pinned.keys() & set(self.block.ads)):
            yield f"pinned: {ad} is blocked as well; pin it or block it"
        for brand, count in Counter(brand for group in self.competitors for brand in set(group)).items():
            if count > 1:
                yield f"competitors: {brand} is in {count} groups; expected one"
        for at, group in enumerate(self.competitors):
            if len(set(group)) < 2:
                yield f"competitors.{at}: {group}; expected two brands or more"
        for cap, count in Counter((cap.scope, cap.minutes) for cap in self.caps).items():
            if count > 1:
                yield f"caps: {count} of scope {cap[0]} within {cap[1]} minutes; expected one"

    def warnings(self) -> list[str]:
        """What can be followed, but may show less than the shop expects, one a line."""
        return [
            f"caps.{at}: whoever is shown or looks at {RING_SIZE} items within {cap.minutes} minutes, such as five "
            f"placements of ten ads, is shown no ad at all until the oldest of them is {cap.minutes} minutes old: "
            f"no more are remembered to count. Choose {CAP_MINUTES} minutes or fewer, about one visit, or watch "
            'salience_empty_slots_total and salience_losing_candidates_total{reason="capped"}.'
            for at, cap in enumerate(self.caps)
            if cap.minutes > CAP_MINUTES
        ]

    def owed(self) -> Attribution:
        """Attribution: for how long purchases are credited to clicks, and how much to each click."""
        told = self.attribution
        return Attribution(
            round(self.windows.days * DAY_MS),
            {id64(name): round(days * DAY_MS) for name, days in self.windows.campaigns.items()},
            told.spread,
            {id64(name): spread for name, spread in told.campaigns.items()},
            round(told.half_life_days * DAY_MS),
        )

    def terms(self) -> Terms:
        """The rules as the engine takes them."""
        diversity = self.diversity or _Diversity(strength=0.0)
        return Terms(
            auction=self.auction,
            reserve_micros=self.reserve_micros,
            caps=tuple(Cap(cap.scope, cap.most, cap.minutes * MINUTE_MS) for cap in self.caps),
            blocked_ads=frozenset(map(id64, self.block.ads)),
            blocked_categories=frozenset(map(id64, self.block.categories)),
            blocked_advertisers=frozenset(map(id64, self.block.advertisers)),
            separate=self.separate,
            rivals=tuple((id64(brand), 1 + at) for at, group in enumerate(self.competitors) for brand in group),
            pinned=tuple((id64(ad), slot) for ad, slot in self.pinned.items()),
            diversity=diversity.strength,
            diversify_by=diversity.method,
            category_share=self.category_share,
            fairness=self.fairness.strength if self.fairness else 0.0,
            fair_among=self.fairness.among if self.fairness else "advertiser",
            examination=tuple(self.examination),
            conversion=self.conversion,
            viewed_s=self.viewed_s,
            version=f"{id64(self.model_dump_json(exclude={'windows', 'attribution'})):016x}",
        )


class _Loader(yaml.SafeLoader):
    """Refuses YAML that would mean something else than a reader sees in it, or more than the file holds."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Refuse duplicate keys: the last would count, and what the first blocks would be shown.

        Refuse merges, too: a key beside a merge would replace the merged one in the same way.
        """
        node = super().compose_mapping_node(anchor)
        met = set()
        for key, _ in node.value:
            if key.tag == MERGE:
                raise RulesError(
                    f"line {key.start_mark.line + 1}: {key.value} is a merge; expected its keys themselves, written out"
                )
            if isinstance(key, yaml.ScalarNode):
                if key.value in met:
                    raise RulesError(f"line {key.start_mark.line + 1}: {key.value} is there twice; expected one")
                met.add(key.value)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Refuse numbers that YAML reads in another base: a reserve of 01000 would be 512."""
        node = super().compose_scalar_node(anchor)
        if node.tag in NUMBERS and NOT_AS_WRITTEN.fullmatch(node.value):
            raise RulesError(
                f"line {node.start_mark.line + 1}: {node.value:.80} would be read as another number; expected one in "
                "tens, without a 0 before it and without colons, or quotes around a name"
            )
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse aliases: lists of aliases of lists make a list of millions in a few lines."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]  # yaml's stubs
            raise RulesError(
                f"line {event.start_mark.line + 1}: *{event.anchor} is an alias; expected the value itself, written out"
            )
        return super().compose_node(parent, index)


def parse(text: str) -> Rules:
    """The rules that ``text``, YAML, declares. Raises `RulesError` with every error."""
    try:
        told: Any = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader that takes less
    except RulesError:
        raise
    except yaml.YAMLError as error:
        raise RulesError(f"not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise RulesError("not YAML: nested too deep; see what a file may say: salience rules example") from error
    except (ValueError, ArithmeticError, LookupError, AttributeError) as error:  # such as a 13th month, or !!bool x
        why = f" ({error})" if isinstance(error, ValueError) else ""
        raise RulesError(
            f"not YAML: a value is none of the type that it seems to be{why}; put names in quotes"
        ) from error
    try:
        return Rules.model_validate({} if told is None else told)
    except ValidationError as error:
        raise RulesError("\n".join(_words(error))) from error


def _words(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        yield f"{where}: {message}, got {_shown(problem['input'])}" if where else message


def _shown(value: object) -> str:
    try:
        return f"{value!r:.80}"
    except ValueError:  # a whole number written in hexadecimal may have more digits than Python writes
        return "a number of thousands of digits"


def read(path: Path | None) -> Rules:
    """The rules of a file; None: none. Raises `RulesError`, which names the file."""
    if path is None:
        return Rules()
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RulesError) as error:
        raise RulesError(f"{path}, the rules that SALIENCE_RULES names, cannot be followed:\n{error}") from error
