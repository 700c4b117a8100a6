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
import re
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import hypothesis
import pytest
import yaml
from _pytest.runner import runtestprotocol
from mutmut.mutation import trampoline
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.mutation.trampoline import set_mutant_under_test

ROOT = Path(__file__).parents[1]
#: Module → the tests that hold it, the ones that kill the most first.
TARGETS = {
    "jobs.governance.decide": ["tests/unit/governance/test_decide.py"],
    "jobs.governance.records": ["tests/spark/governance/test_gate.py"],
    "jobs.governance.batches": ["tests/spark/governance/test_gate.py", "tests/spark/test_ingest.py"],
    "jobs.governance.barred": ["tests/spark/governance/test_gate.py", "tests/spark/test_ingest.py"],
    "jobs.governance.gate": ["tests/spark/governance/test_gate.py"],
}

#: Names that Spark reads in capitals too, whatever `spark.sql.caseSensitive` says: of joins and of types.
ANY_CASE = re.compile(r'"(left|left_anti|left_semi|timestamp|int|string|array<string>|array<struct<)"', re.IGNORECASE)


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
    """Instead of running the tests once, runs those that reach a mutant's function, for each mutant, until one fails.

    The test that killed last goes first. ``share``: which of how many equal parts of the mutants.
    """

    def __init__(self, mutated: Mutated, share: tuple[int, int]) -> None:
        self.mutated = mutated
        names = [name for name in mutated.names if not self._is_the_same(name)]
        self.names = names[share[0] - 1 :: share[1]]
        self.excused = list(known())
        self.alive, self.the_same = 0, 0

    def _is_the_same(self, name: str) -> bool:
        change = self.mutated.change(name)
        was, now = (ANY_CASE.sub(lambda found: found[0].lower(), change[key]) for key in ("was", "now"))
        return was == now

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Without a mutant all must pass; with one, some must fail."""
        reached = {item: self._reached_by(item, session.items) for item in session.items}
        order = list(session.items)
        began = time.monotonic()
        for number, name in enumerate(self.names, start=1):
            set_mutant_under_test(f"{self.mutated.module}.{name}")
            function = name.rpartition("__mutmut_")[0]
            with contextlib.redirect_stderr(io.StringIO()):
                tests = [item for item in order if function in reached[item]]
                killer = next((item for item in tests if not self._passes(item, session.items)), None)
            if killer is not None:
                order.remove(killer)
                order.insert(0, killer)
            elif (change := self.mutated.change(name)) in self.excused:
                self.the_same += 1
            else:
                self.alive += 1
                print(json.dumps(change, ensure_ascii=False), flush=True)
            if number % 50 == 0 or number == len(self.names):
                seconds = time.monotonic() - began
                print(f"{number} of {len(self.names)} mutants, {self.alive} alive, {seconds:.0f} s", flush=True)
        set_mutant_under_test("")
        return True

    def _reached_by(self, item: pytest.Item, items: Sequence[pytest.Item]) -> set[str]:
        """The functions of the module that a test calls, by mutmut's names."""
        functions: set[str] = set()
        with mock.patch.object(
            trampoline, "record_trampoline_hit", lambda name, **_: functions.add(name.rpartition(".")[2])
        ):
            set_mutant_under_test("stats")
            if not self._passes(item, items):
                raise pytest.UsageError("the tests must pass before anything is mutated")
        return functions

    @staticmethod
    def _passes(item: pytest.Item, items: Sequence[pytest.Item]) -> bool:
        # It is followed by another of its module, so that the fixtures of session and module stay.
        following = items[1] if item is items[0] else items[0]
        return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def known() -> Iterator[dict[str, str]]:
    """Mutants that decide the same as the original."""
    for entry in yaml.safe_load((ROOT / "tests" / "mutants.yaml").read_text(encoding="utf-8")) or []:
        yield {key: entry[key] for key in ("function", "was", "now")}


def main(arguments: Sequence[str]) -> int:
    """Run one module's mutants; 1 where some live that tests/mutants.yaml does not name.

    Arguments: the module's name, and optionally a share (`2/4`: the second quarter), for several processes.
    """
    module, share = arguments[0], arguments[1] if len(arguments) > 1 else "1/1"
    part, parts = map(int, share.split("/"))
    hypothesis.settings.register_profile(
        "mutants", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate], database=None, derandomize=True
    )
    hypothesis.settings.load_profile("mutants")
    os.environ["MUTANT_UNDER_TEST"] = ""
    # A column's name in capitals is the same column to Spark, unless it is told otherwise.
    os.environ["PYSPARK_SUBMIT_ARGS"] = "--conf spark.sql.caseSensitive=true pyspark-shell"
    mutated = Mutated(module)
    sys.meta_path.insert(0, mutated)
    killing = Killing(mutated, (part, parts))
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
    counts = f"{len(killing.names)} mutants, {killing.alive} alive, {killing.the_same} that decide the same"
    print(f"{module} {share}: {counts}")
    return 1 if killing.alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
