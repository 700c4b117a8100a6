"""Shows that the machine sees what a mend mends: each is taken out, and its own short history has to find something.

    python -m tests.histories.mends [NUMBER…]

mends.yaml has them: what is mended, how it is taken out (a text of a module's source in exchange for another), and the
history. A text that is not there any more is an error: the mend was moved, and this list has to follow.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MENDS = Path(__file__).with_suffix(".yaml")
_TAKEN = "HISTORIES_TAKEN_OUT"


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


def take_out(changes: list[dict[str, str]]) -> None:
    """From now on the project is imported without these."""
    by_module: dict[str, list[dict[str, str]]] = {}
    for change in changes:
        by_module.setdefault(change["module"], []).append(change)
    sys.meta_path.insert(0, TakenOut(by_module))


def main(wanted: list[str]) -> int:
    """Each mend in a process of its own; says what was found without it, and how many were not seen."""
    unseen = 0
    for mend in yaml.safe_load(MENDS.read_text(encoding="utf-8")):
        if wanted and mend["name"] not in wanted:
            continue
        environment = {**os.environ, _TAKEN: json.dumps(mend["take_out"]), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.histories.mends", "--play", json.dumps(mend["history"])]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        # A mend that was taken out so that its module fails proves nothing.
        told = [line for line in done.stdout.splitlines() if line.startswith("Guarantee")]
        seen = [line for line in told if "unforeseen" not in line]
        print(
            f"{mend['name']}: {mend['says']}\n    " + ("\n    ".join(seen) or f"NOT SEEN\n{done.stderr[-500:]}"),
            flush=True,
        )
        unseen += not seen
    return unseen


def play_here(text: str) -> int:
    """Play a history in this process, with what the environment says taken out."""
    take_out(json.loads(os.environ.get(_TAKEN, "[]")))
    from tests.histories.__main__ import session, worlds
    from tests.histories.machine import History, play

    with worlds(session(), quick=True) as make_world:
        player = play(make_world(), History.from_json(text))
    for finding in player.findings:
        print(str(finding).rsplit("\n", 1)[0].replace("\n   ", ":"))
    return len(player.findings)


if __name__ == "__main__":
    sys.exit(play_here(sys.argv[2]) if sys.argv[1:2] == ["--play"] else main(sys.argv[1:]))
