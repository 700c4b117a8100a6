"""What a jurisdiction asks of a basis record beyond the general rule: data (conf/jurisdictions.yaml), read strictly.

Not legal advice; each rule names its source and what it does not cover.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from jobs.errors import SettingsError
from jobs.governance.decide import DURATION_PATTERN, LAWFUL_BASES, SPECIAL_CATEGORY_CONDITIONS, JurisdictionRule
from jobs.strict_yaml import read_yaml

#: Fields of a record that a jurisdiction may ask for, over those that every record needs.
REQUIRABLE: Final = (
    "written_release_ref",
    "authority_disclosure_ref",
    "authority_disclosed_at",
    "last_interaction_at",
    "expires_at",
)


def _duration(text: str) -> str:
    if not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError("must be an ISO 8601 duration of years, months, weeks and days")
    return text


def _among(known: tuple[str, ...]) -> AfterValidator:
    def check(values: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown: {unknown}")
        return values

    return AfterValidator(check)


Duration = Annotated[str, AfterValidator(_duration)]
Names = tuple[Annotated[str, Field(min_length=1)], ...]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    source: str = Field(pattern=r"^https://")
    not_covered: str = Field(min_length=1)
    jurisdictions: Names = Field(min_length=1)
    lawful_bases: Annotated[Names, _among(LAWFUL_BASES)] = Field(min_length=1)
    special_category_conditions: Annotated[Names, _among(SPECIAL_CATEGORY_CONDITIONS)] = Field(min_length=1)
    required: Annotated[Names, _among(REQUIRABLE)] = ()
    wait_after_disclosure: Duration | None = None
    keep_after_last_interaction: Duration | None = None

    @model_validator(mode="after")
    def _durations_have_their_start(self) -> _Rule:
        for duration, start in (
            ("wait_after_disclosure", "authority_disclosed_at"),
            ("keep_after_last_interaction", "last_interaction_at"),
        ):
            if getattr(self, duration) and start not in self.required:
                raise ValueError(f"{duration} counts from {start}, which must then be required")
        return self


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: tuple[_Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_jurisdiction_once(self) -> _Rules:
        named = [j for rule in self.rules for j in rule.jurisdictions]
        twice = sorted({j for j in named if named.count(j) > 1})
        if twice:
            raise ValueError(f"jurisdictions named by two rules: {twice}")
        return self


def load_rules(path: str | None = None) -> tuple[JurisdictionRule, ...]:
    """The rules of ``path``, or those that come with this release.

    Raises:
        SettingsError: the file is not readable or not of the form of conf/jurisdictions.yaml.
    """
    where = path or "conf/jurisdictions.yaml"
    try:
        found = _Rules.model_validate(read_yaml(_bytes(path)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(p) for p in first["loc"])
        raise SettingsError(f"{where}: {place}: {first['msg']}.", hint="see conf/jurisdictions.yaml.") from None
    except (OSError, ValueError) as error:
        why = error if type(error) is ValueError else type(error).__name__
        raise SettingsError(f"{where}: cannot be read ({why}).", hint="each name once, and no aliases.") from None
    return tuple(
        JurisdictionRule(
            name=rule.name,
            jurisdictions=rule.jurisdictions,
            lawful_bases=rule.lawful_bases,
            special_category_conditions=rule.special_category_conditions,
            required=rule.required,
            wait_after_disclosure=rule.wait_after_disclosure,
            keep_after_last_interaction=rule.keep_after_last_interaction,
        )
        for rule in found.rules
    )


def policy_digest(path: str | None = None, coverage: str = "any") -> str:
    """SHA-256 of the rule in force: the jurisdictions' data, what covers a face, and the source of the decision."""
    digest = hashlib.sha256()
    for name in ("blanks.py", "decide.py", "gate.py"):
        digest.update(resources.files("jobs.governance").joinpath(name).read_bytes())
    digest.update(coverage.encode())
    digest.update(_bytes(path))
    return digest.hexdigest()


def _bytes(path: str | None) -> bytes:
    if path:
        return Path(path).read_bytes()
    installed = resources.files("jobs").joinpath("_conf", "jurisdictions.yaml")
    # In a checkout, where nothing is installed, conf/ lies beside jobs/.
    checkout = Path(__file__).parents[2] / "conf" / "jurisdictions.yaml"
    return (installed if installed.is_file() else checkout).read_bytes()
