"""Makes docs/decisions/milvus-servers.md: every fact with its versions, its source and the tests that show it.

.venv/bin/python -m tests.milvus.servers.page > docs/decisions/milvus-servers.md
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.milvus.servers.facts import REFS, SECTIONS, Fact

TESTS = Path(__file__).resolve().parents[1]
_HEAD = """# Milvus servers from 2.4 on

Made from [facts.py](../../tests/milvus/servers/facts.py) by `make docs`; a test compares it.

**None of this was run against such a server: it is known from source.** Each row is a rule of the
[double](../../tests/milvus/servers/__init__.py) that stands for seven versions (2.4.13, 2.5.27, 2.6.0, 2.6.7, 2.6.24,
3.0.0, 3.0.2), and the client is tested against it. What was *measured*, with 2.3.5, is on [the page about
Milvus](milvus.md).

How a fact is known: **read**, in the server's source at the places that are named; **documented**, by Milvus's own
pages; **reported**, by its developers in a public thread; **unconfirmed**: the double does so to be on the safe side,
and where it was looked for it was not found. 2.6.24 and 3.0.2 are newer than any source that was at hand: what holds
for the versions before them is taken to hold for them.

The tasks of 2.3, near the end, are what older servers have for jobs. They were read in a copy of the main branch from
before 2.4; what says *also run* was seen with 2.3.5.
"""


def shown_by() -> dict[str, list[str]]:
    """The tests that show each fact (`facts.shows`), as file and function."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                for fact in _facts_of(node):
                    found[fact].append(f"{path.stem}::{node.name}")
    return found


def _facts_of(function: ast.FunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        match decorator:
            case ast.Call(func=ast.Name(id="shows"), args=names):
                yield from (str(name.value) for name in names if isinstance(name, ast.Constant))


def page() -> str:
    """The whole page."""
    tests = shown_by()
    parts = [_HEAD]
    for title, facts in SECTIONS.items():
        parts.append(f"## {title}\n\n| fact | versions | where | known | tests |\n| --- | --- | --- | --- | --- |")
        parts[-1] += "".join(f"\n{_row(fact, tests[fact.name])}" for fact in facts) + "\n"
    parts.append("## Where it was read\n\n| version | repository | commit | |\n| --- | --- | --- | --- |")
    parts[-1] += "".join(
        f"\n| {name} | {ref.repository} | `{ref.commit[:10]}` | {ref.note} |" for name, ref in REFS.items()
    )
    return "\n".join(parts) + "\n"


def _row(fact: Fact, tests: list[str]) -> str:
    where = fact.source if fact.source.startswith("http") else f"`{fact.source}`"
    at = f" ({', '.join(fact.refs)})" if fact.refs else ""
    names = "<br>".join(f"`{test.partition('::')[2]}`" for test in tests)
    return f"| {fact.says} | {fact.span} | {where}: {fact.names}{at} | {fact.known} | {names} |".replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(page())
