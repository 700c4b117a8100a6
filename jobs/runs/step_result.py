"""What a step leaves on record: a frozen dataclass for each kind of step, which owns its name, its JSON and its DDL.

The row of `run_steps` is read by the run that goes on, by later runs, and by Spark over all of them. Records outlive
releases: what an earlier one did not write yet has a default, and what it wrote besides is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import Column

T = TypeVar("T")
#: Metadata of a field whose own fields stand in the record in its place; and of one that is left out where it is None.
FLAT: Final = {"flat": True}
OMITTED: Final = {"omitted": True}
_SCALARS: Final = {bool: "boolean", int: "bigint", float: "double", str: "string"}


class StepResult:
    """The base of all kinds; `jobs.runs.results` has them."""

    #: The name in the column `step`; one that ends in a slash is of many steps, each with a part of its own behind it.
    STEP: ClassVar[str]
    #: What earlier releases called it: their records are read as its own. See `results.present_name`.
    FORMERLY: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def name(cls, part: str = "") -> str:
        """The name of the step (of one ``part`` of many) in `run_steps`."""
        if cls.STEP.endswith("/") is not bool(part):
            raise ValueError(f"{cls.__name__}: {cls.STEP!r} and {part!r} are no name of a step")
        return cls.STEP + part

    @classmethod
    def is_name(cls, name: str) -> bool:
        """Whether a step of this name is of this kind."""
        return name.startswith(cls.STEP) if cls.STEP.endswith("/") else name in {cls.STEP, *cls.FORMERLY}

    @classmethod
    def of_step(cls) -> Column:
        """Which rows of `run_steps` are of this kind, done or not."""
        step = F.col("step")
        return step.startswith(cls.STEP) if cls.STEP.endswith("/") else step.isin(cls.STEP, *cls.FORMERLY)

    @classmethod
    def condition(cls) -> str:
        """The same in a statement (`Warehouse.rows`)."""
        if cls.STEP.endswith("/"):
            return f"step LIKE '{cls.STEP}%'"
        names = ", ".join(f"'{name}'" for name in (cls.STEP, *cls.FORMERLY))
        return f"step IN ({names})"

    @classmethod
    def column(cls, name: str, of: str = "result") -> Column:
        """A field of the record, from the column that holds it as JSON; null where it is not in there.

        Raises:
            AttributeError: the kind has no field of this name.
        """
        kind = _columns(cls).get(name)
        if kind is None:
            raise AttributeError(f"{cls.__name__} records no {name!r}, but {', '.join(_columns(cls))}")
        text = F.get_json_object(of, f"$.{name}")
        if kind == "string":
            return text
        return text.cast(kind) if kind in _SCALARS.values() else F.from_json(text, kind)

    @classmethod
    def ddl(cls) -> str:
        """The whole record as columns, for `from_json`."""
        return ", ".join(f"{name} {kind}" for name, kind in _columns(cls).items())

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """The result that is on record, also one of an earlier release."""
        return from_record(cls, record)

    def record(self) -> dict[str, Any]:
        """As it is put on record, and shown: numbers, texts, lists and dicts."""
        found: dict[str, Any] = record_of(self)
        return found


def from_record(kind: type[T], record: Mapping[str, Any]) -> T:
    """A dataclass that is on record."""
    return cast(T, _decoded(kind, record))


def record_of(value: Any) -> Any:
    """A dataclass as it is put on record: its fields by name, in their order."""
    if isinstance(value, Mapping):
        return {key: record_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [record_of(item) for item in value]
    if not is_dataclass(value):
        return value
    found: dict[str, Any] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if field.metadata.get("flat"):
            found |= record_of(item)
        elif item is not None or not field.metadata.get("omitted"):
            found[field.name] = record_of(item)
    return found


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _decoded(hint: Any, value: Any) -> Any:
    """``value`` of a record as the type of a field says."""
    if value is None or hint is Any:
        return value
    if isinstance(hint, type) and is_dataclass(hint):
        return hint(**_arguments(hint, value))
    origin, inner = get_origin(hint), [each for each in get_args(hint) if each is not type(None)]
    if origin in (Union, UnionType):
        return _decoded(inner[0], value) if len(inner) == 1 else value
    if origin is tuple:
        each = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_decoded(kind, item) for kind, item in zip(each, value, strict=True))
    if origin is dict:
        return {key: _decoded(inner[1], item) for key, item in value.items()}
    return value


def _arguments(kind: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(kind):
        hint = _hints(kind)[field.name]
        if field.metadata.get("flat"):
            if not {each.name for each in fields(hint)}.isdisjoint(record):
                found[field.name] = _decoded(hint, record)
        elif field.name in record:
            found[field.name] = _decoded(hint, record[field.name])
    return found


def _columns(kind: Any) -> dict[str, str]:
    """The fields of a record, each with its type as Spark names it."""
    found: dict[str, str] = {}
    for field in fields(kind):
        hint = _hints(kind)[field.name]
        found |= _columns(hint) if field.metadata.get("flat") else {field.name: _spark_type(hint)}
    return found


def _spark_type(hint: Any) -> str:
    if hint in _SCALARS:
        return _SCALARS[hint]
    if isinstance(hint, type) and is_dataclass(hint):
        return f"struct<{', '.join(f'{name}: {kind}' for name, kind in _columns(hint).items())}>"
    origin, inner = get_origin(hint), [each for each in get_args(hint) if each is not type(None)]
    if origin in (Union, UnionType) and len(inner) == 1:
        return _spark_type(inner[0])
    if origin is tuple:
        return f"array<{_spark_type(inner[0])}>"
    if origin is dict:
        return f"map<string, {_spark_type(inner[1])}>"
    # Of several types: as it is written.
    return "string"
