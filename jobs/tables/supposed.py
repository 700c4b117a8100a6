"""A warehouse as it would be: for whoever asks what would come of something, and stores nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from jobs.tables.store import Warehouse, materialise

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from jobs.schemas import TableSpec


class SupposedWarehouse(Warehouse):
    """The tables of ``stored``, which is read only, and beside them, in this process alone, what was appended here.

    It says that it may be written, so that those who append do; to the tables it writes nothing, and makes none.
    """

    def __init__(self, stored: Warehouse) -> None:
        if not stored.read_only:
            # To read a table would make or migrate it.
            raise ValueError("a warehouse that may be written is none to suppose something of")
        super().__init__(lambda: stored.spark, stored.location, is_path=stored.is_path)
        self._stored = stored
        self._more: dict[str, DataFrame] = {}

    def read(self, spec: TableSpec, version: int | None = None) -> DataFrame:
        frame = self._stored.read(spec, version)
        return frame.unionByName(self._more[spec.name]) if spec.name in self._more else frame

    def append(
        self,
        rows: DataFrame | Sequence[tuple[Any, ...]],
        spec: TableSpec,
        *,
        transaction: str | None = None,  # noqa: ARG002 - nobody else appends here
        transaction_version: int = 0,  # noqa: ARG002
    ) -> None:
        frame = self.spark.createDataFrame(rows, spec.columns) if isinstance(rows, Sequence) else rows
        columns = self.spark.createDataFrame([], spec.columns).schema
        frame = materialise(frame.select([F.col(f.name).cast(f.dataType).alias(f.name) for f in columns]))
        before = self._more.get(spec.name)
        self._more[spec.name] = frame if before is None else before.unionByName(frame)

    def exists(self, spec: TableSpec) -> bool:
        return self._stored.exists(spec)

    def _writable(self, spec: TableSpec) -> None:
        raise NotImplementedError(f"{spec.name}: rows can only be supposed")

    def _prepare(self, spec: TableSpec) -> None:
        raise NotImplementedError(f"{spec.name}: only stored tables are made")
