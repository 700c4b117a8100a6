"""Control tables: who holds the lease, which runs there were, what they did, and the audit trail.

Rows are only ever added to them, a few at a time, and a night asks for some of them a hundred times. As a job of
Spark each of that takes a second, most of which is planning; delta-rs does it in this process in milliseconds, and
commits atomically among processes where Spark's own log store for local files does not (docs/decisions/delta.md).

Spark reads these tables as any other; where delta-rs writes a table, nothing else does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs.errors import FaceReindexError
from jobs.schemas import AUDIT_EVENTS, LEASES, RUN_STEPS, RUNS

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

CONTROL_TABLES: Final = (LEASES, RUNS, RUN_STEPS, AUDIT_EVENTS)

# What stands in statements: ids, names of steps and states, digests. Nothing that would need to be escaped.
_PLAIN: Final = re.compile(r"[\w./%:-]*\Z", re.ASCII)
# What delta-rs says of a file that is gone or no Parquet; and of what only the operating system would not do.
_BROKEN_FILE: Final = re.compile(r"Parquet error|not found: No such file")
_REFUSED: Final = re.compile(r"\(os error (?!2\))\d+\)")


@dataclass(frozen=True)
class Query:
    """A SELECT in the SQL that Spark and DataFusion share; ``limit`` 0: all rows. ``values`` stand in it by name."""

    columns: str
    where: str = ""
    order_by: str = ""
    limit: int = 0
    values: Mapping[str, str | int] = field(default_factory=dict)

    def of(self, rows: str) -> str:
        """The statement.

        Raises:
            ValueError: a text among the values is not plain.
        """
        parts = [f"SELECT {self.columns} FROM {rows}"]  # noqa: S608 - texts of this project, and plain values
        parts += [f"WHERE {self.where.format(**self._literals())}"] if self.where else []
        parts += [f"ORDER BY {self.order_by}"] if self.order_by else []
        parts += [f"LIMIT {self.limit}"] if self.limit else []
        return " ".join(parts)

    def _literals(self) -> dict[str, str]:
        for name, value in self.values.items():
            if isinstance(value, str) and not _PLAIN.match(value):
                raise ValueError(f"{name} may not stand in a statement")
        return {
            name: f"'{value}'" if isinstance(value, str) else str(int(value)) for name, value in self.values.items()
        }


class DeltaRsTable:
    """A Delta table that is there, in a local folder.

    Each call opens it anew, for which it reads the end of its log: no thread sees another's state of it.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def exists(self) -> bool:
        """Whether it was created."""
        from deltalake import DeltaTable

        return DeltaTable.is_deltatable(self.folder)

    def version(self) -> int:
        """The latest committed version."""
        return self._open().version()

    def select(self, query: Query) -> list[dict[str, Any]]:
        """The rows that a query finds, timestamps in UTC."""
        import pyarrow as pa
        from deltalake import QueryBuilder

        with self._files():
            found = QueryBuilder().register("t", self._open()).execute(query.of("t"))
            rows: list[dict[str, Any]] = pa.table(found.read_all()).to_pylist()
        return rows

    def append(self, rows: Sequence[tuple[Any, ...]] | pa.Table, transaction: tuple[str, int] | None) -> None:
        """Add rows in one commit. Of a transaction's name only a version above its last one is taken, as by Spark.

        Raises:
            ConcurrentTransactionException: another's commit of that name came in between.
        """
        import pyarrow as pa
        from delta.exceptions import ConcurrentTransactionException
        from deltalake import CommitProperties, Transaction, write_deltalake
        from deltalake.exceptions import CommitFailedError

        table = self._open()
        schema = pa.schema(table.schema().to_arrow())
        if not isinstance(rows, pa.Table):
            columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
            rows = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
        if transaction is None:
            write_deltalake(table, rows.cast(schema), mode="append")
            return
        last = table.transaction_version(transaction[0])
        if last is not None and last >= transaction[1]:
            return
        commit = CommitProperties(app_transactions=[Transaction(*transaction)])
        try:
            write_deltalake(table, rows.cast(schema), mode="append", commit_properties=commit)
        except CommitFailedError as error:
            if "Concurrent transaction" not in str(error):
                raise
            raise ConcurrentTransactionException("another commit of this transaction came in between") from None

    def compact(self) -> None:
        """One file of many small ones."""
        with self._files():
            self._open().optimize.compact()

    def vacuum(self, hours: float, *, uncommitted: bool) -> None:
        """Remove files that no version of the last ``hours`` refers to; with ``uncommitted`` also those of none."""
        # delta-rs takes whole hours. Rather a file too many that stays.
        whole = -int(-hours // 1)
        self._open().vacuum(whole, enforce_retention_duration=False, dry_run=False, full=uncommitted)

    def _open(self) -> DeltaTable:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        try:
            return DeltaTable(self.folder)
        except DeltaError:
            raise self._damaged("its log cannot be read") from None

    @contextmanager
    def _files(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if _BROKEN_FILE.search(str(error)) and not _REFUSED.search(str(error)):
                raise self._damaged("a file that its log names is gone or cannot be read") from None
            raise

    def _damaged(self, what: str) -> FaceReindexError:
        return FaceReindexError(
            f"Table {Path(self.folder).name} is damaged: {what}.",
            hint="see 'A damaged table' in docs/operations.md: what can be made again, and what only a backup has.",
        )
