"""One Spark session and one Milvus server of the benchmark's own, and how collections of invented faces get there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from udfs.arrays import EMBEDDING_DIM

SERVER = "Milvus 2.3.5 standalone"
SHARDS = 2
SEED = 0
#: Product quantisation trains for a quarter of an hour, and says nothing meanwhile.
PATIENCE_S = 3600


class Collections:
    """Collections of invented faces, each loaded as `reindex` does it."""

    def __init__(self, name: str, folder: Path, uri: str) -> None:
        from jobs.index.milvus.connect import connect
        from jobs.session import open_session
        from jobs.settings import Settings

        self.settings = Settings.model_validate({"milvus": {"uri": uri}})
        self.spark = open_session(f"bench {name}")
        self.index, self.folder = connect(self.settings), folder
        self._number = 0

    def choose(self, index_type: str) -> None:
        """The index of all collections from here on."""
        milvus = self.settings.milvus.model_copy(update={"index_type": index_type})
        self.settings = self.settings.model_copy(update={"milvus": milvus})

    def table(self, rows: int) -> str:
        """A Delta table of so many faces."""
        from bench.faces import invented_faces

        path = self.folder / f"faces-{rows}"
        if not path.exists():
            invented_faces(self.spark, rows, SEED).write.format("delta").save(str(path))
        return str(path)

    def in_memory(self, rows: int) -> tuple[Any, Any]:
        """The vectors and keys of such a table, in memory."""
        import pyarrow as pa

        batches = self.spark.read.format("delta").load(self.table(rows)).select("face_id", "embedding").toArrow()
        flat = pa.concat_arrays(batches.column("embedding").chunks).flatten().to_numpy()
        return flat.reshape(rows, -1), batches.column("face_id").to_numpy()

    def new(self) -> str:
        """An empty collection."""
        from jobs.index.protocol import CollectionInfo

        self._number += 1
        name = f"bench_{self._number}"
        info = CollectionInfo("0" * 64, name, False, "invented faces", "")
        self.index.create(name, dim=EMBEDDING_DIM, shards=SHARDS, properties=info)
        return name

    def stage(self, table: str, name: str) -> Any:
        """The table's rows in files for a collection."""
        from jobs.index.load_plan import plan_load
        from jobs.index.staging import stage

        faces = self.spark.read.format("delta").load(table)
        return stage(
            faces,
            str(self.folder / f"staged-{name}"),
            purpose_flags=1,
            files_for=lambda rows: plan_load(rows, self.settings, self.index.features).files,
        )

    def import_files(self, name: str, staged: Any) -> None:
        """Import staged files."""
        from jobs.index.loader import MemoryRecorder, load_files
        from jobs.index.staging import digests

        digest = digests(self.spark, staged.files)
        load_files(self.index, name, staged.files, self.settings, recorder=MemoryRecorder(), digest=digest)

    def imported(self, rows: int) -> str:
        """A collection with the rows of a table, not indexed yet."""
        name = self.new()
        self.import_files(name, self.stage(self.table(rows), name))
        return name

    def spec(self, rows: int) -> Any:
        """The index that the settings choose for so many rows."""
        from jobs.index.collections import default_index

        return default_index(self.settings, rows, embedded=False)

    def searchable(self, name: str, rows: int) -> None:
        """Index and load a collection, and see that all rows are there."""
        self.index.build_index(name, self.spec(rows), timeout=PATIENCE_S)
        self.index.load(name, timeout=PATIENCE_S)
        found = self.index.count(name)
        if found != rows:
            raise RuntimeError(f"{name} holds {found} rows where {rows} were loaded: no figure comes of this")

    def stop(self) -> None:
        """End the connection and the session."""
        self.index.close()
        self.spark.stop()


@contextmanager
def server() -> Iterator[tuple[Path, Any]]:
    """A folder, and a server that keeps its files in it."""
    from tests.milvus.server import MilvusStandalone

    with (
        tempfile.TemporaryDirectory(prefix="face-reindex-bench-") as name,
        MilvusStandalone(Path(name) / "m") as running,
    ):
        yield Path(name), running
