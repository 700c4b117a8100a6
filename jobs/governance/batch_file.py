"""The assessment of a source as a person writes it: a YAML file of six texts, which `--basis-template` begins."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from jobs.errors import BadInput, SettingsError
from jobs.governance.basis_lines import checked_time
from jobs.governance.blanks import filled, is_plain
from jobs.governance.decide import COLLECTION_METHODS
from jobs.strict_yaml import NULLS, read_yaml

_MOST_BYTES: Final = 65_536
# What an earlier template had behind its values. Any other comment there may be the rest of one: `crm #2025`.
_COMMENTS: Final = (
    "who supplied the pictures",
    "uploaded_by_subject, provided_by_controller, partner_transfer or public_web",
    "where the assessment is kept (a document's number)",
    "2026-01-31T12:00:00Z",
    "unassessed, assessed or revoked",
)


def _text(value: Any) -> str | None:
    """Each scalar is the text that stands there (`strict_yaml`): 2026 is a name, and no number."""
    if not isinstance(value, str):
        raise ValueError("must be one text")
    return value if filled(value) and value not in NULLS else None


def _name(value: str | None) -> str:
    if value is None or not is_plain(value):
        raise ValueError("must be a name without characters that do not show")
    return value


def _time(value: str | None) -> str | None:
    return None if value is None else checked_time(value)


def _method(value: str | None) -> str | None:
    if value is not None and value not in COLLECTION_METHODS:
        raise ValueError(f"must be one of {', '.join(COLLECTION_METHODS)}")
    return value


_Text = Annotated[str | None, BeforeValidator(_text)]


class SourceBatch(BaseModel):
    """What a batch file says: all six keys, and of an assessed batch all six values."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    source_batch_id: Annotated[str | None, AfterValidator(_name), BeforeValidator(_text)]
    supplier: _Text
    collection_method: Annotated[_Text, AfterValidator(_method)]
    assessment_ref: _Text
    assessed_at: Annotated[_Text, AfterValidator(_time)]
    state: Annotated[Literal["unassessed", "assessed", "revoked"], BeforeValidator(_text)]

    @model_validator(mode="after")
    def _complete(self) -> SourceBatch:
        empty = [name for name, value in self.model_dump().items() if value is None]
        if self.state == "assessed" and empty:
            raise ValueError(f"an assessed batch needs every field; nothing stands in {', '.join(empty)}")
        return self


def is_batch_file(given: str) -> bool:
    """Whether `--batch` names a file by its ending, in whatever case; else it is an id."""
    return given.lower().endswith((".yaml", ".yml"))


def refuse_unplain(names: Mapping[str, str]) -> None:
    """Make sure that ``names``, by the options that they are given by, are only what they look like.

    Raises:
        SettingsError: one is not.
    """
    for option, name in names.items():
        if not is_plain(name):
            raise SettingsError(f"{option}: there is white space about it, or characters that do not show.")


def assessment_of(given: str) -> dict[str, str | None] | None:
    """What the file says that `--batch` names; None: it is an id.

    Raises:
        BadInput: the file is not of the form.
        SettingsError: there is a file of that name which would be taken for an id; a revocation in it would be lost.
    """
    if is_batch_file(given):
        return read_batch(given)
    with suppress(OSError):
        if Path(given).is_file():
            raise SettingsError(
                f"--batch {given}: is a file, and by its name no YAML.",
                hint="call it ….yaml; if the id of a batch is meant, start the job in another folder.",
            )
    return None


def read_batch(path: str) -> dict[str, str | None]:
    """Read a source batch's assessment: texts, None where nothing stands.

    Raises:
        BadInput: a key is missing, unknown, empty or there twice, or a value is not of its form.
    """
    data = _yaml(path)
    if not isinstance(data, dict):
        raise BadInput(f"--batch {path}: expected 'key: value' lines.")
    try:
        return SourceBatch.model_validate(data).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place, what = ".".join(str(part) for part in first["loc"]), str(first["msg"])
        raise BadInput(
            f"--batch {path}: {place}{': ' if place else ''}{what.removeprefix('Value error, ')}.",
            hint=f"the keys are {', '.join(SourceBatch.model_fields)}; docs/basis-record.md has an example.",
        ) from None


def _yaml(path: str) -> Any:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError("too long")
        return read_yaml(data, comments=_COMMENTS)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"--batch {path}: cannot be read ({error if isinstance(error, ValueError) else type(error).__name__}).",
            hint="write it as `ingest --basis-template` does: each key once, a text behind it.",
        ) from None
