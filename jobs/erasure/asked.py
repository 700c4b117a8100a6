"""What an erasure was asked for, and where: by options, and by lines of a subject file. Names stay in that file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.erasure.kinds import Target
from jobs.errors import SettingsError
from jobs.formatting import the_first
from jobs.governance.decide import PRINCIPAL_PATTERN
from jobs.governance.pseudonyms import Pseudonyms, normalised, pseudonyms_of
from jobs.governance.rewritten import MAYBE_END, MAYBE_TWO, SAID_OF_LOST, name_lost
from jobs.governance.tombstones import BATCH, IMAGE, SUBJECT
from jobs.texts import LINE_END, text_of

if TYPE_CHECKING:
    from jobs.settings import Settings

#: A target and where it stands: an option, or lines of the subject file.
Asked = dict[Target, list[str]]
_NAMED: Final = 20


def asked_for(
    settings: Settings, *, subject: str | None, subject_file: str | None, image: str | None, batch: str | None
) -> Asked:
    """The targets; each once, however often it was asked for.

    Raises:
        SettingsError: the file cannot be read, names nobody, or has names and there is no key; or a pseudonym or an id
            has not the form.
    """
    for option, value in (("--image", image), ("--batch", batch)):
        # What Python makes of an argument's bytes that are no text.
        if value and re.search("[\ud800-\udfff]", value):
            raise SettingsError(f"{option}: is not UTF-8, as every id is.", hint="set a UTF-8 locale.")
    found = [(Target(IMAGE, image), "--image")] if image else []
    found += [(Target(BATCH, batch), "--batch")] if batch else []
    if subject:
        if not re.fullmatch(PRINCIPAL_PATTERN, subject):
            raise SettingsError(
                "--subject takes a pseudonym (hmac:, hmac2: or hmac3: and 64 hex digits).", hint="use --subject-file."
            )
        found.append((Target(SUBJECT, subject), "--subject"))
    if subject_file:
        found += (lines := list(_subjects(settings, subject_file)))
        if not lines:
            raise SettingsError(f"--subject-file {subject_file}: names nobody.", hint="one name or pseudonym a line.")
    merged: dict[tuple[str, str], tuple[Target, list[str]]] = {}
    for target, place in found:
        known, places = merged.get((target.kind, target.value), (target, []))
        also = tuple(dict.fromkeys([*known.also, *target.also]))
        merged[target.kind, target.value] = Target(target.kind, target.value, also), [*places, place]
    return dict(merged.values())


def names_persons(asked: Asked) -> bool:
    """Whether a person was asked for by name."""
    return any(target.also for target in asked)


def places(asked: Sequence[Sequence[str]]) -> str:
    """Where it was asked for, for a message: the first few."""
    return the_first([place for some in asked for place in some], _NAMED)


def nothing_found(unknown: Mapping[str, Sequence[str]]) -> str:
    """What to say of requests of which nothing was found: by their ids, where each was asked for."""
    where = places([asked or [request_id] for request_id, asked in unknown.items()])
    return (
        f"{len(unknown)} of them found NOTHING ({where}): barred from now on, but look at how it is written, "
        "and whether all former keys are in the ring"
    )


def _subjects(settings: Settings, path: str) -> Iterator[tuple[Target, str]]:
    try:
        text = text_of(Path(path).read_bytes())
    except OSError as error:
        raise SettingsError(f"--subject-file {path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise SettingsError(f"--subject-file {path}: {error}.", hint="names in it would not be found.") from None
    names = pseudonyms_of(settings)
    for number, line in enumerate(LINE_END.split(text), start=1):
        place = f"--subject-file {path}, line {number}"
        # An end of a line also at its ends: of a name that has one there, the other may be missing.
        habit = MAYBE_TWO if MAYBE_END.search(line) else name_lost(line)
        if habit:
            raise SettingsError(
                f"{place}: {SAID_OF_LOST[habit]}; several people may be meant by it.", hint=_hint(habit)
            )
        if wanted := normalised(line):
            yield _subject(line, wanted, names, place), f"line {number}"


def _hint(habit: str) -> str:
    source = "write one name a line" if habit == MAYBE_TWO else "take the name from where the file was made from"
    return f"{source}, or give the pseudonym by --subject."


def _subject(line: str, wanted: str, names: Pseudonyms | None, place: str) -> Target:
    if re.fullmatch(PRINCIPAL_PATTERN, wanted):
        return Target(SUBJECT, wanted)
    if re.match(r"hmac\d*\s*:", wanted):
        raise SettingsError(
            f"{place}: begins like a pseudonym and is none.",
            hint="hmac:, hmac2: or hmac3: and 64 hex digits; or a name.",
        )
    if names is None:
        raise SettingsError(
            f"{place}: names are turned into pseudonyms with a key, and there is none.",
            hint="set FACE_REINDEX_HMAC_KEY to the keys that the records were imported with, the current one first.",
        )
    current, *others = names.of(line)
    return Target(SUBJECT, current, tuple(others))
