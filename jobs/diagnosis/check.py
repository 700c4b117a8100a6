"""A check, and how checks are made one after the other, however one of them ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from jobs.diagnosis.found import DEFECT, Found, failure, not_asked, ok
from jobs.diagnosis.subject import Subject
from jobs.errors import DependencyUnavailable, FaceReindexError, SettingsError
from jobs.runs.error_messages import explained
from jobs.settings import Settings

_READ_LOGS: Final = "see the log of what it names, mend it, and run `doctor` again."


@dataclass(frozen=True)
class Check:
    """One thing to look at. ``needs`` names the checks without which it cannot be asked."""

    name: str
    look: Callable[[Subject], Iterable[Found]]
    needs: tuple[str, ...] = ()


@dataclass
class Examination:
    """Checks in their order; what each found is told at once, and kept."""

    tell: Callable[[Found], None]
    found: list[Found] = field(default_factory=list)
    _failed: set[str] = field(default_factory=set)

    def run(self, checks: Sequence[Check], subject: Subject) -> None:
        """Make every check. Whatever happens, what was made for them is taken away at the end."""
        try:
            for check in checks:
                self._make(check, subject)
        finally:
            self._make(Check("left behind", _take_away), subject)

    def _make(self, check: Check, subject: Subject) -> None:
        missing = [name for name in check.needs if name in self._failed]
        if missing:
            self._failed.add(check.name)
            self._add(check, not_asked(f"it needs `{missing[0]}`"))
            return
        try:
            for found in check.look(subject):
                self._add(check, found)
        except Exception as error:
            self._add(check, found_in(error, subject.settings))

    def _add(self, check: Check, found: Found) -> None:
        if found.level == "failure":
            self._failed.add(check.name)
        named = Found(found.level, found.what, found.next_step, found.exit_code, check.name)
        self.found.append(named)
        self.tell(named)

    @property
    def exit_code(self) -> int:
        """2: a setting is wrong. 1: this program has a defect. 5: the machines or stores are not what a night needs."""
        codes = {found.exit_code for found in self.found}
        return next((code for code in (SettingsError.exit_code, DEFECT) if code in codes), max(codes, default=0))


def found_in(error: Exception, settings: Settings) -> Found:
    """What an exception says of what was asked; one that nobody knows is a defect of ours, and is told as such."""
    known = error if isinstance(error, FaceReindexError) else explained(error, settings)
    if known is None:
        if os.environ.get("FACE_REINDEX_TRACEBACK"):
            raise error
        step = "run it again with FACE_REINDEX_TRACEBACK=1 in the environment, and report what it shows."
        return Found("failure", f"an unforeseen {type(error).__name__}.", step, DEFECT)
    kind = SettingsError if isinstance(known, SettingsError) else DependencyUnavailable
    return failure(known.message, known.hint or _READ_LOGS, kind)


def _take_away(subject: Subject) -> Iterator[Found]:
    """Undo, the last first, whatever becomes of one; then say what is still there."""
    left = False
    while subject.undos:
        what, undo = subject.undos.pop()
        try:
            undo()
        except Exception as error:
            left = True
            why = found_in(error, subject.settings)
            yield failure(f"{what} could not be removed: {why.what}", f"remove it by hand. {why.next_step}")
    if not left:
        yield ok("nothing")
