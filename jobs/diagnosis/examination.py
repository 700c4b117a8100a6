"""The checks of `doctor` in their order. One that needs another is not asked where that failed."""

from __future__ import annotations

from typing import Final

from jobs.diagnosis import milvus, places, workers
from jobs.diagnosis.check import Check

CHECKS: Final = (
    Check("spark", workers.versions),
    Check("executors", workers.executors, ("spark",)),
    Check("packages", workers.python_and_packages, ("executors",)),
    Check("gpu", workers.gpu, ("executors",)),
    Check("clocks", workers.clocks, ("executors",)),
    Check("places", places.places_of_the_driver, ("spark",)),
    Check("tables", places.tables, ("places",)),
    Check("staging", places.staging, ("executors",)),
    Check("milvus", milvus.reached),
    Check("database", milvus.database, ("milvus",)),
    Check("executors to milvus", milvus.reached_by_executors, ("milvus", "executors")),
    Check("roles", milvus.roles, ("database",)),
    Check("limits", milvus.limits, ("milvus",)),
    Check("collection", milvus.collection, ("database",)),
    Check("import", milvus.imports, ("collection", "staging")),
    Check("insert", milvus.inserts, ("collection",)),
    Check("index and search", milvus.served, ("insert",)),
    Check("delete", milvus.deletes, ("index and search",)),
    Check("compact", milvus.compacts, ("delete",)),
    Check("alias", milvus.aliases, ("index and search",)),
    Check("index types", milvus.index_types, ("collection",)),
    Check("reader", milvus.reader, ("index and search",)),
    Check("drop", milvus.dropped, ("collection",)),
    Check("privileges", milvus.loaders_privileges, ("database",)),
)
