"""Mutation testing of the gate and of the decision function (`make test-mutants`): every mutant has to die.

mutmut (https://mutmut.readthedocs.io) makes the mutants: copies of a module's functions with one thing changed each, of
which MUTANT_UNDER_TEST picks one at run time. They are run here, in one process, and not by `mutmut run`, which forks a
process a mutant: the gate's tests need a Spark session, and one serves them all. A mutant is dead when one of the
module's tests fails. tests/mutants.yaml names those that nothing can kill, each with why: they decide the same.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.abc
import importlib.util
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
import yaml
from _pytest.runner import runtestprotocol
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.mutation.trampoline import set_mutant_under_test

ROOT = Path(__file__).parents[1]
#: Module → the tests that hold it, the ones that kill the most first.
TARGETS = {
    "jobs.governance.decide": ["tests/unit/test_decide.py"],
    "jobs.governance.gate": ["tests/spark/test_gate.py"],
}


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module with all its mutants in it."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.path = ROOT / (module.replace(".", "/") + ".py")
        made = mutate_file_contents(str(self.path), self.path.read_text(encoding="utf-8"))
        self.code, self.names = made.code, list(made.mutant_names)
        spans = made.line_span_by_function_name
        lines = self.code.splitlines()
        self._bodies = {name: lines[span.start - 1 : span.end] for name, span in spans.items()}

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        """The module's own spec, with this loader."""
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.module else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the mutated source in place of the file's."""
        module.__file__ = str(self.path)
        exec(compile(self.code, str(self.path), "exec"), module.__dict__)  # noqa: S102 - the module, with its mutants

    def change(self, name: str) -> dict[str, str]:
        """What a mutant changes: function, lines before, lines after."""
        function = name.rpartition("__mutmut_")[0]
        before, after = (
            [line.replace(f"{function}{end}(", "(") for line in self._bodies[function + end]]
            for end in ("__mutmut_orig", name.removeprefix(function))
        )
        lines = [line for line in difflib.ndiff(before, after) if line[0] in "-+"]
        parts = {sign: " ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+"}
        return {"function": function.removeprefix("x_"), "was": parts["-"], "now": parts["+"]}


class Killing:
    """Instead of running the tests once, runs them for each mutant until one fails."""

    def __init__(self, mutated: Mutated) -> None:
        self.mutated = mutated
        self.survivors: list[str] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Without a mutant all must pass; with one, some must fail."""
        if not self._pass(session.items):
            raise pytest.UsageError("the tests must pass before anything is mutated")
        began = time.monotonic()
        for number, name in enumerate(self.mutated.names, start=1):
            set_mutant_under_test(f"{self.mutated.module}.{name}")
            with contextlib.redirect_stderr(io.StringIO()):
                if self._pass(session.items):
                    self.survivors.append(name)
            if number % 50 == 0 or number == len(self.mutated.names):
                seconds = time.monotonic() - began
                print(f"{number} of {len(self.mutated.names)} mutants, {len(self.survivors)} alive, {seconds:.0f} s")
        set_mutant_under_test("")
        return True

    @staticmethod
    def _pass(items: Sequence[pytest.Item]) -> bool:
        # Each is followed by another of its module, so that the fixtures of session and module stay.
        for item, following in zip(items, [*items[1:], items[0]], strict=True):
            if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
                return False
        return True


def known() -> Iterator[dict[str, str]]:
    """Mutants that decide the same as the original."""
    for entry in yaml.safe_load((ROOT / "tests" / "mutants.yaml").read_text(encoding="utf-8")) or []:
        yield {key: entry[key] for key in ("function", "was", "now")}


def main(arguments: Sequence[str]) -> int:
    """Run one module's mutants (its name is the argument); 1 where some live that tests/mutants.yaml does not name."""
    module = arguments[0]
    hypothesis.settings.register_profile(
        "mutants", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate], database=None, derandomize=True
    )
    hypothesis.settings.load_profile("mutants")
    os.environ["MUTANT_UNDER_TEST"] = ""
    mutated = Mutated(module)
    sys.meta_path.insert(0, mutated)
    killing = Killing(mutated)
    options = [
        "-m",
        "not faults",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]
    code = pytest.main([*TARGETS[module], *options], plugins=[killing])
    if code:
        return int(code)
    excused = list(known())
    alive = [change for change in map(mutated.change, killing.survivors) if change not in excused]
    for change in alive:
        print(json.dumps(change, ensure_ascii=False))
    excuses = len(killing.survivors) - len(alive)
    print(f"{module}: {len(mutated.names)} mutants, {len(alive)} alive, {excuses} that decide the same")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
