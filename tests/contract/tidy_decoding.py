"""Rules about what is decoded: records of a stranger's hand, and types that msgspec builds once."""

import ast
import re
from collections.abc import Iterator

from tests.contract.tidy import Findings, Rule, Source


def what_cannot_be_read_is_caught_whole(sources: list[Source]) -> Findings:
    """Who catches msgspec's errors catches all that a record of a stranger's hand can raise."""
    for source in sources:
        if not source.path.startswith("streams/") or source.path == "streams/wire.py":
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
                caught: ast.expr | None = node
            else:
                caught = node.type if isinstance(node, ast.ExceptHandler) else None
            if caught is not None and re.search(r"\bmsgspec\.(Msgspec|Decode)Error", ast.unparse(caught)):
                yield (
                    f"{source.path}:{caught.lineno}: catches msgspec's errors alone, and JSON nested a thousand deep "
                    "raises another; catch streams.wire.UNREADABLE"
                )


def decoders_are_made_at_import(sources: list[Source]) -> Findings:
    """A type is built by msgspec (0.22) when it is first decoded, and two threads that do so at once crash.

    Commands have one thread, and load a type when they need it.
    """
    for source in sources:
        if source.package not in ("scoring", "streams") or source.path.startswith("streams/cli/"):
            continue
        for call in _calls_in_functions(source.tree):
            name = ast.unparse(call.func).rpartition(".")[2]
            types = {"decode": [k.value for k in call.keywords if k.arg == "type"], "Decoder": call.args}.get(name, [])
            if any(re.fullmatch(r"(\w+\.)?_?[A-Z]\w*", ast.unparse(each)) for each in types):
                yield (
                    f"{source.path}:{call.lineno}: {ast.unparse(call.func)} of a type within a function; the first two "
                    "threads to call it would crash; make a Decoder at import"
                )


def _calls_in_functions(tree: ast.Module) -> Iterator[ast.Call]:
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    found = {id(node): node for function in functions for node in ast.walk(function) if isinstance(node, ast.Call)}
    yield from found.values()


RULES: dict[str, Rule] = {
    rule.__name__: rule for rule in (what_cannot_be_read_is_caught_whole, decoders_are_made_at_import)
}
