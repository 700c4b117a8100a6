"""Makes docs/api.md from the docstrings of what `udfs` exports, without importing any of it.

.venv/bin/python -m docs.api > docs/api.md
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The modules in the order in which somebody needs them. What a module exports is `__all__` of `udfs`.
MODULES = {
    "weights": "Weights and the model file",
    "params": "Parameters",
    "pipeline": "The pipeline",
    "results": "What goes in and what comes out",
    "coverage": "Who may be embedded",
    "reading": "Reading",
    "decode": "Decoding",
    "detect": "Detection",
    "embed": "Embedding",
    "nets": "Networks",
    "device": "Device",
    "fingerprint": "Fingerprint",
}
#: Spark's side is imported by its module's name, for it needs pyspark.
SPARK = ("EmbedSpec", "embed_arrow", "detect_and_embed")


def main() -> None:
    """Write the page to stdout."""
    sys.stdout.write(page())


def page() -> str:
    """The whole page."""
    package = _parse("__init__")
    parts = ["# The API of `udfs`", "Made from the docstrings by `make docs`.", *_docstring(package)]
    home = exported()
    for module, title in MODULES.items():
        parts.append(f"## {title}")
        names = {node: name for name, (where, node) in home.items() if where == module}
        for node in _definitions(module):
            if node.name in names:
                parts += _entry(node, "udfs", names[node.name])
    parts += ["## In Spark", "From `udfs.spark`."]
    parts += [part for node in _definitions("spark") if node.name in SPARK for part in _entry(node, "udfs.spark")]
    return "\n\n".join(parts) + "\n"


def exported() -> dict[str, tuple[str, str]]:
    """The exported names: by each its module and its name there."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(_parse("__init__")):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("udfs."):
            module = str(node.module).removeprefix("udfs.")
            found |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
    return found


def _parse(module: str) -> ast.Module:
    return ast.parse((ROOT / "udfs" / f"{module}.py").read_text(encoding="utf-8"))


def _definitions(module: str) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """What a module defines, and what it hands on from another one of ours."""
    for node in _parse(module).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"udfs.{module}_"):
            handed = {alias.name for alias in node.names}
            yield from (n for n in _definitions(str(node.module).removeprefix("udfs.")) if n.name in handed)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node


def _entry(node: ast.ClassDef | ast.FunctionDef, package: str, name: str = "") -> Iterator[str]:
    name = name or node.name
    yield f"### {name}"
    code = f"from {package} import {name}\n\n"  # as ruff formats it: a blank line more before a class
    if isinstance(node, ast.FunctionDef):
        yield f"```python\n{code}{_signature(node, name)}\n```"
        yield from _docstring(node)
        return
    methods = [child for child in node.body if isinstance(child, ast.FunctionDef)]
    made = next((child for child in methods if child.name == "__init__"), None)
    yield f"```python\n{code}{_class(node, name) if made is None else _signature(made, name, returns=False)}\n```"
    yield from _docstring(node)
    for method in methods:
        if not method.name.startswith("_"):
            is_property = any(ast.unparse(d) == "property" for d in method.decorator_list)
            shown = f"{method.name}: {ast.unparse(method.returns)}" if is_property and method.returns else ""
            yield f"```python\n{shown or _signature(method, method.name)}\n```"
            yield from _docstring(method)


def _class(node: ast.ClassDef, name: str) -> str:
    fields = [child for child in node.body if isinstance(child, ast.AnnAssign)]
    bases = f"({', '.join(map(ast.unparse, node.bases))})" if node.bases else ""
    return f"\nclass {name}{bases}:" + ("".join(f"\n    {_field(child)}" for child in fields) or " ...")


def _field(node: ast.AnnAssign) -> str:
    """One field; what a factory makes is not of interest."""
    text = ast.unparse(node).replace("'", '"')
    return re.sub(r" = field\(default_factory=(.*)\)$", r" = \1()", text)


def _signature(node: ast.FunctionDef, name: str, *, returns: bool = True) -> str:
    arguments = node.args
    if arguments.args and arguments.args[0].arg == "self":
        arguments.args = arguments.args[1:]
    given = f" -> {ast.unparse(node.returns)}" if returns and node.returns else ""
    within = ast.unparse(arguments).replace("'", '"')
    line = f"{name}({within}){given}"
    if len(line) <= 100:
        return line
    # One argument a line; commas inside brackets are not between arguments.
    each = re.split(r", (?![^\[(]*[\])])", within)
    return f"{name}(\n" + "".join(f"    {argument},\n" for argument in each) + f"){given}"


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    """Paragraphs of a docstring as Markdown."""
    text = (ast.get_docstring(node) or "").replace("``", "`")
    for paragraph in text.split("\n\n"):
        if paragraph.startswith((">>>", "    ")):
            yield "```python\n" + re.sub(r"(?m)^ {4}", "", paragraph) + "\n```"
        elif paragraph:
            # A list's lines stay lines; `*` and `-` are the same to a reader.
            words = re.sub(r"(?m)^\* ", "- ", paragraph).split("`")
            # Between words in code a `<` begins no tag.
            yield "`".join(word if number % 2 else word.replace("<", "\\<") for number, word in enumerate(words))


if __name__ == "__main__":
    main()
