"""The source keeps the rules of `tidy`, and each rule is shown able to fail.

Beside the repository itself, every rule reads small sources made up for it, which break it or only look so: a rule
that cannot find anything guards nothing.
"""

from pathlib import Path

import pytest

from streams.settings import Settings, table
from tests.contract import tidy, tidy_decoding
from tests.contract.tidy import (
    CONSUMERS,
    IMPORTERS,
    PACKAGES,
    Rule,
    Source,
    exceptions_to_rules_have_reasons,
    modules_are_one_idea,
)

ROOT = Path(__file__).parents[2]
RULES = tidy.RULES | tidy_decoding.RULES


@pytest.fixture(scope="module")
def repository() -> list[Source]:
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths]


@pytest.mark.parametrize("rule", [modules_are_one_idea, exceptions_to_rules_have_reasons])
def test_the_tests_keep_the_rule_too(rule: Rule) -> None:
    tests = [Source(path.relative_to(ROOT).as_posix(), path.read_text()) for path in (ROOT / "tests").rglob("*.py")]
    findings = list(rule(tests))
    assert not findings, "\n".join(["", *findings])


@pytest.mark.parametrize("rule", RULES)
def test_the_source_keeps_the_rule(rule: str, repository: list[Source]) -> None:
    findings = list(RULES[rule](repository))
    assert not findings, "\n".join(["", *findings])


CORE = '"""The core:\n\n    ids → (ring,\n    rows) → engine\n"""'
PATH = {"scoring/__init__.py": CORE, **{f"scoring/{name}.py": "" for name in ("ids", "ring", "rows", "engine")}}
PATHLESS = {path: text for path, text in PATH.items() if "ids" not in path}
MADE = dict.fromkeys(CONSUMERS, "AIOKafkaConsumer()")
IMPORTED = {
    (place + "x.py" if place.endswith("/") else place): "\n".join(
        f"import {library}" for library, places in IMPORTERS.items() if place in places
    )
    for places in IMPORTERS.values()
    for place in places
}

TRY = "try:\n    f()\n"

# Rule, sources that break it in one place, and what the finding says.
BROKEN: list[tuple[str, dict[str, str], str]] = [
    ("imports_go_one_way", {"scoring/a.py": "import streams.wire"}, "scoring/a.py:1: imports streams.wire"),
    ("imports_go_one_way", {"scoring/a.py": "def f():\n    from streams import wire"}, "scoring/a.py:2: imports"),
    ("imports_go_one_way", {"onnx_models/a.py": "from streams.wire import Ad"}, "imports streams.wire.Ad"),
    ("imports_go_one_way", {"streams/a.py": "from onnx_models import network"}, "imports onnx_models.network"),
    ("imports_go_one_way", {"streams/a.py": "from deploy.brokers import Broker"}, "imports deploy.brokers.Broker"),
    ("imports_go_one_way", {"streams/demo/a.py": "import onnx_models"}, "streams/demo may import"),
    ("imports_go_one_way", {"deploy/a.py": "import scoring"}, "imports scoring"),
    ("scoring_is_pure", {"scoring/a.py": "\nimport os"}, "scoring/a.py:2: uses os"),
    ("scoring_is_pure", {"scoring/a.py": "from time import monotonic"}, "uses time"),
    ("scoring_is_pure", {"scoring/a.py": "import numpy as np\nr = np.random.rand()"}, "a.py:2: uses numpy.random"),
    ("scoring_is_pure", {"scoring/a.py": "import datetime\ndatetime.datetime.now()"}, "uses datetime.datetime.now"),
    ("scoring_is_pure", {"scoring/a.py": "from datetime import datetime as d\nd.now()"}, "a.py:2: uses datetime"),
    ("scoring_follows_its_path", PATH | {"scoring/ids.py": "import scoring.engine"}, "ids.py:1: imports"),
    ("scoring_follows_its_path", PATH | {"scoring/ring.py": "from scoring.rows import x"}, "imports scoring.rows"),
    ("scoring_follows_its_path", PATH | {"scoring/new.py": ""}, "scoring.new is not on the path"),
    ("scoring_follows_its_path", PATHLESS, "scoring.ids is on the path but not there"),
    ("few_import_what_few_should", IMPORTED | {"streams/a.py": "import onnxruntime"}, "streams/a.py:1: imports onnx"),
    ("few_import_what_few_should", IMPORTED | {"streams/a.py": "from torch.nn import Linear"}, "imports torch"),
    ("few_import_what_few_should", IMPORTED | {"scoring/attention.py": ""}, "does not import onnxruntime"),
    ("few_make_consumers", MADE | {"streams/a.py": "import aiokafka\naiokafka.AIOKafkaConsumer()"}, "streams/a.py:2:"),
    ("few_make_consumers", MADE | {"streams/a.py": "reader = groupless(b)"}, "streams/a.py:1:"),
    ("few_make_consumers", MADE | {"streams/intake.py": "c: AIOKafkaConsumer"}, "intake.py:1: makes no consumer"),
    ("clients_connect_as_the_environment_says", {"streams/a.py": "AIOKafkaProducer(bootstrap_servers=b)"}, "a.py:1"),
    ("clients_connect_as_the_environment_says", {"streams/a.py": "\nAdminClient({'bootstrap.servers': b})"}, "a.py:2"),
    (
        "questions_to_brokers_go_aside",
        {"streams/a.py": "await asyncio.to_thread(identify, s)"},
        "a.py:1: asks a broker",
    ),
    ("questions_to_brokers_go_aside", {"streams/a.py": "asyncio.to_thread(topic_admin.found, b)"}, "topic_admin.found"),
    ("questions_to_brokers_go_aside", {"streams/a.py": "async def f():\n  g(len(found(b)))"}, "a.py:2: asks a broker"),
    ("functions_fit_a_screen", {"deploy/a.py": "\ndef f():\n" + 60 * "    1\n"}, "deploy/a.py:2: f has 61 lines"),
    ("functions_fit_a_screen", {"deploy/a.py": "class A:\n  async def f():\n" + 60 * "    1\n"}, "f has 61 lines"),
    ("modules_are_one_idea", {"streams/a.py": 401 * "1\n"}, "has 401 lines"),
    ("no_module_is_dead", {"streams/a.py": "from streams import b", "streams/b.py": ""}, "nothing imports streams.a"),
    ("no_module_is_dead", {"streams/a.py": "import streams.a"}, "nothing imports streams.a"),
    ("scoring_says_what_it_does", {"scoring/a.py": "def f(): ..."}, "scoring/a.py:1: f is public"),
    ("scoring_says_what_it_does", {"scoring/a.py": "class A:\n    'A.'\n    def f(self): ..."}, "a.py:3: f is public"),
    ("exceptions_to_rules_have_reasons", {"streams/a.py": "import a  # noqa: F401"}, "streams/a.py:1: '# noqa: F401'"),
    ("exceptions_to_rules_have_reasons", {"streams/a.py": "a = 1  # type: ignore  # untyped"}, "no rule"),
    ("exceptions_to_rules_have_reasons", {"streams/a.py": "a = 1  # type: ignore[misc]"}, "gives no reason"),
    ("commands_print_on_the_screen", {"streams/cli/a.py": "\nrich.console.Console(markup=False)"}, "cli/a.py:2"),
    ("commands_print_on_the_screen", {"streams/cli/a.py": "Text.from_markup('x')"}, "cli/a.py:1: Text.from_markup"),
    ("commands_print_on_the_screen", {"streams/cli/a.py": "print('x')"}, "cli/a.py:1: print"),
    ("commands_print_on_the_screen", {"streams/cli/a.py": "from rich.table import Table"}, "cli/a.py:1: rich.table"),
    ("what_cannot_be_read_is_caught_whole", {"streams/a.py": f"{TRY}except (msgspec.DecodeError, E): ..."}, "a.py:3"),
    ("what_cannot_be_read_is_caught_whole", {"streams/a.py": "with suppress(msgspec.MsgspecError): ..."}, "a.py:1"),
    ("decoders_are_made_at_import", {"streams/a.py": "def f(x):\n    msgspec.json.decode(x, type=_Kept)"}, "a.py:2"),
    ("decoders_are_made_at_import", {"scoring/a.py": "async def f(x):\n    Decoder(wire.Ad).decode(x)"}, "a.py:2"),
]


@pytest.mark.parametrize(("rule", "sources", "said"), BROKEN, ids=[f"{rule}-{said}" for rule, _, said in BROKEN])
def test_the_rule_finds_what_breaks_it(rule: str, sources: dict[str, str], said: str) -> None:
    findings = list(RULES[rule]([Source(path, text) for path, text in sources.items()]))
    assert len(findings) == 1
    assert said in findings[0]


NAMED_IN_A_STRING = {"streams/__main__.py": "run('-m', 'streams.b')", "streams/b.py": ""}
REASONED = "1  # noqa: B, C1 - why\n2  # type: ignore[misc, arg-type]  # why"

# Sources that look like breaking a rule and keep it.
KEPT: list[tuple[str, dict[str, str]]] = [
    ("imports_go_one_way", {"streams/cli/a.py": "import deploy, onnx_models, scoring, streams.wire, numpy"}),
    ("scoring_is_pure", {"scoring/a.py": "import numpy as np\nfrom datetime import timedelta"}),
    ("scoring_is_pure", {"streams/a.py": "import os"}),
    ("scoring_follows_its_path", PATH | {"scoring/engine.py": "from scoring import ids\nimport scoring.rows"}),
    ("few_import_what_few_should", IMPORTED),
    (
        "few_make_consumers",
        MADE | {"streams/lanes/lane.py": "from aiokafka import AIOKafkaConsumer\nc: AIOKafkaConsumer"},
    ),
    ("clients_connect_as_the_environment_says", {"streams/a.py": "AIOKafkaConsumer(x, **aiokafka_options(b))"}),
    ("clients_connect_as_the_environment_says", {"streams/a.py": "AdminClient({**librdkafka_options(b), 'x': 2})"}),
    ("clients_connect_as_the_environment_says", {"deploy/a.py": "AdminClient({'bootstrap.servers': b})"}),
    ("questions_to_brokers_go_aside", {"streams/a.py": "aside(identify, s)\nasyncio.to_thread(load, f)"}),
    ("questions_to_brokers_go_aside", {"streams/a.py": "async def f():\n  g(lambda: found(b))\ndef g():\n  found(b)"}),
    ("functions_fit_a_screen", {"deploy/a.py": "@d\ndef f():\n" + 59 * "    1\n"}),
    ("modules_are_one_idea", {"streams/a.py": 400 * "1\n"}),
    ("no_module_is_dead", NAMED_IN_A_STRING),
    ("no_module_is_dead", {"streams/__init__.py": "from streams.a import x", "streams/a.py": ""}),
    ("scoring_says_what_it_does", {"scoring/a.py": "def _f(): ...\nclass _A: ...", "streams/a.py": "def f(): ..."}),
    ("exceptions_to_rules_have_reasons", {"streams/a.py": REASONED}),
    (
        "commands_print_on_the_screen",
        {"streams/cli/a.py": "c: Console\nc.print(x)", "streams/cli/screen.py": "Text(x)"},
    ),
    ("what_cannot_be_read_is_caught_whole", {"streams/a.py": f"{TRY}except UNREADABLE: raise msgspec.DecodeError"}),
    (
        "decoders_are_made_at_import",
        {
            "streams/a.py": "d = msgspec.json.Decoder(Ad).decode\ndef f(x): return d(x), decode(x, type=list[Raw])",
            "streams/cli/a.py": "def f(x): return msgspec.json.decode(x, type=Ad)",
        },
    ),
]


@pytest.mark.parametrize(("rule", "sources"), KEPT, ids=[rule for rule, _ in KEPT])
def test_the_rule_lets_pass_what_keeps_it(rule: str, sources: dict[str, str]) -> None:
    assert list(RULES[rule]([Source(path, text) for path, text in sources.items()])) == []


def test_every_rule_is_shown_both_ways() -> None:
    assert {rule for rule, _, _ in BROKEN} == {rule for rule, _ in KEPT} == RULES.keys()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    assert Settings.model_fields[name].description, f"streams/settings.py: {name} has no description; say its reason"


def test_the_page_of_settings_is_the_one_that_the_command_prints() -> None:
    page = (ROOT / "deploy" / "SETTINGS.md").read_text()
    assert page == table(), "write it anew: salience settings --markdown > deploy/SETTINGS.md"
