"""Shows that the machine sees what a mend mends: each is taken out, and its own short history has to find something.

    python -m tests.histories.mends [NUMBER…]

mends.yaml has them: what is mended, how it is taken out (a text of a module's source in exchange for another, on the
driver; executors import modules as they are), and the history. A text that is not there any more is an error: the mend
was moved, and this list has to follow.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MENDS = Path(__file__).with_suffix(".yaml")
_OURS = ("jobs", "udfs", "tests.histories.")


class TakenOut(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads modules of the project with some of their texts exchanged."""

    def __init__(self, changes: dict[str, list[dict[str, str]]]) -> None:
        self.changes = changes

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """The module's own spec, with this loader."""
        return importlib.util.spec_from_loader(fullname, self) if fullname in self.changes else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed source in place of the file's."""
        path = ROOT / (module.__name__.replace(".", "/") + ".py")
        source = path.read_text(encoding="utf-8")
        for change in self.changes[module.__name__]:
            if source.count(change["was"]) != 1:
                raise SystemExit(
                    f"mends.yaml: {module.__name__} has {source.count(change['was'])} times: {change['was']!r}"
                )
            source = source.replace(change["was"], change["now"])
        module.__file__ = str(path)
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - the module, without its mend


@contextmanager
def without(changes: list[dict[str, str]]) -> Iterator[None]:
    """The project, imported anew without these, and nothing of it that was imported before; then as it was."""
    by_module: dict[str, list[dict[str, str]]] = {}
    for change in changes:
        by_module.setdefault(change["module"], []).append(change)
    finder = TakenOut(by_module)
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(_OURS)}
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.startswith(_OURS)]:
            del sys.modules[name]
        sys.modules.update(before)


def main(wanted: list[str]) -> int:
    """Each mend in one session of Spark; says what was found without it, and returns how many were not seen."""
    from tests.histories.__main__ import session

    spark, unseen = session(), 0
    for mend in yaml.safe_load(MENDS.read_text(encoding="utf-8")):
        if wanted and mend["name"] not in wanted:
            continue
        with without(mend["take_out"]):
            told = play_here(spark, json.dumps(mend["history"]))
        # A mend that was taken out so that its module fails proves nothing.
        seen = [line for line in told if "unforeseen" not in line]
        print(f"{mend['name']}: {mend['says']}\n    " + "\n    ".join(seen or ["NOT SEEN", *told]), flush=True)
        unseen += not seen
    return unseen


def play_here(spark: Any, text: str) -> list[str]:
    """Play a history with the modules as they are imported now; returns what it finds, a line each."""
    from tests.histories.__main__ import worlds
    from tests.histories.machine import History, play

    with worlds(spark, quick=True) as make_world:
        player = play(make_world(), History.from_json(text))
    for word in player.unmet:
        print(f"{word}: the job ended before it came to that point", flush=True)
    return [str(finding).rsplit("\n", 1)[0].replace("\n   ", ":") for finding in player.findings]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
