"""What all permissions of a batch have in common, as a person writes it: one YAML file for `ingest --terms`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from jobs.errors import BadInput
from jobs.governance.basis_lines import checked_time
from jobs.governance.blanks import filled, is_plain, stripped
from jobs.governance.decide import (
    COLLECTION_METHODS,
    DURATION_PATTERN,
    LAWFUL_BASES,
    SCHEMA_VERSIONS,
    SPECIAL_CATEGORY_CONDITIONS,
    STATES_GIVEN,
)
from jobs.governance.rewritten import holds_nothing
from jobs.strict_yaml import NULLS, Lines, read_yaml_with_lines
from jobs.texts import REPLACED

_MOST_BYTES: Final = 65_536


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be one text")
    if not filled(value) or value in NULLS or REPLACED in value or holds_nothing(value):
        raise ValueError(
            "must not be empty, nor hold what a program could not read, or wrote for nothing (#REF!, NULL)"
        )
    if len(value.splitlines()) > 1:
        raise ValueError("must stand in one line")
    return stripped(value)


def _name(value: str) -> str:
    if not is_plain(value):
        raise ValueError("must be a name without characters that do not show")
    return value


def _duration(value: str) -> str:
    if not re.fullmatch(DURATION_PATTERN, value):
        raise ValueError("must be a duration such as P2Y, P18M or P90D")
    return value


def _one_of(known: tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return value

    return AfterValidator(check)


# The validator that is written last comes first.
_Text = Annotated[str, BeforeValidator(_text)]
_Texts = Annotated[list[_Text], Field(min_length=1)]
_Time = Annotated[str, AfterValidator(checked_time), BeforeValidator(_text)]
_Duration = Annotated[str, AfterValidator(_duration), BeforeValidator(_text)]


class Terms(BaseModel):
    """All that a permission needs beside a picture, a person and a time. Names are those of a record's fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    source_batch_id: Annotated[str, AfterValidator(_name), BeforeValidator(_text)]
    purposes: _Texts
    pii_controllers: _Texts
    lawful_basis: Annotated[str, _one_of(LAWFUL_BASES), BeforeValidator(_text)]
    special_category_condition: Annotated[str, _one_of(SPECIAL_CATEGORY_CONDITIONS), BeforeValidator(_text)]
    collection_method: Annotated[str, _one_of(COLLECTION_METHODS), BeforeValidator(_text)]
    retention_period: _Duration
    jurisdiction: _Text
    withdrawal_method: _Text
    impact_assessment: _Text
    privacy_notice: _Text
    validity_duration: _Duration
    event_type: _Text
    event_state: Annotated[str, _one_of(STATES_GIVEN), BeforeValidator(_text)]
    last_interaction_at: _Time | None = None
    expires_at: _Time | None = None
    written_release_ref: _Text | None = None
    authority_disclosure_ref: _Text | None = None
    authority_disclosed_at: _Time | None = None

    def cells(self) -> dict[str, str]:
        """As cells of a basis CSV, by column."""
        said = {name: value for name, value in self.model_dump().items() if value is not None}
        texts = {name: json.dumps(value) if isinstance(value, list) else value for name, value in said.items()}
        return {**texts, "schema_version": SCHEMA_VERSIONS[-1]}


def read_terms(path: str, batch_id: str) -> Terms:
    """Read the terms of a batch.

    Raises:
        BadInput: a key is missing, unknown, empty or there twice, a value is not of its form, or they are of another
            batch. The message has the key, and its line where it has one.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError("too long")
        # No comment behind a value: `crm #2025` is not the batch `crm`.
        said, lines = read_yaml_with_lines(data, comments=())
    except (OSError, ValueError) as error:
        raise BadInput(
            f"--terms {path}: cannot be read ({error if isinstance(error, ValueError) else type(error).__name__}).",
            hint="write 'key: value' lines, each key once; docs/basis-record.md has an example.",
        ) from None
    if not isinstance(said, dict):
        raise BadInput(f"--terms {path}: expected 'key: value' lines.", hint="docs/basis-record.md has an example.")
    try:
        terms = Terms.model_validate(said)
    except ValidationError as error:
        raise BadInput(
            f"--terms {path}: {'; '.join(_faults(error, lines))}.",
            hint=f"the keys are {', '.join(Terms.model_fields)}; docs/basis-record.md has an example.",
        ) from None
    if terms.source_batch_id != batch_id:
        raise BadInput(
            f"--terms {path}: line {lines['source_batch_id']}: these are the terms of batch {terms.source_batch_id}, "
            f"and --batch is {batch_id}.",
            hint="what people of one batch were told need not hold for another: write its own terms.",
        )
    return terms


def _faults(error: ValidationError, lines: Lines) -> list[str]:
    """What is wrong, by line and key; a key that is missing has no line."""
    found = []
    for fault in error.errors(include_url=False, include_input=False):
        key, what = str(fault["loc"][0]) if fault["loc"] else "", str(fault["msg"]).removeprefix("Value error, ")
        if fault["type"] == "missing":
            found.append(f"{key} is missing")
        elif fault["type"] == "extra_forbidden":
            # Not the key itself, which may be anything that somebody has pasted.
            found.append(f"line {lines[key]}: an unknown key")
        else:
            found.append(f"line {lines[key]}: {key}: {what}")
    return found
