"""Names of collections, and the index that fits a number of rows."""

from __future__ import annotations

import math
import re

from jobs.index.protocol import NUMBER_BYTES, SCALARS, CollectionInfo, IndexSpec, VectorIndex, VectorType
from jobs.settings import Settings
from udfs.arrays import EMBEDDING_DIM

MAX_NAME = 255
FLAT_BELOW = 50_000
# 200 million faces are 0.4 TiB as HNSW in memory; a byte a dimension is a quarter of it.
SQ8_ABOVE = 200_000_000
# Bytes that IVF_PQ keeps of a vector: half of what IVF_SQ8 keeps. Fewer lose too many neighbours to be promoted
# (docs/operations.md, "Which index").
PQ_BYTES = 256


def row_bytes(vector_type: VectorType, dim: int = EMBEDDING_DIM) -> int:
    """Bytes of a collection's row: its vector and its scalars."""
    return NUMBER_BYTES[vector_type] * dim + 8 * len(SCALARS)


def segment_rows(vector_type: VectorType) -> int:
    """Rows of a full segment: Milvus seals one at 1 GiB (dataCoord.segment.maxSize of 2.3 to 2.6).

    It indexes each by itself.
    """
    return 2**30 // row_bytes(vector_type)


def collection_name(alias: str, run_id: str) -> str:
    """The collection that a run builds for an alias: letters, digits and underscores, at most 255.

    >>> collection_name("faces", "2026-01-31T02:00:00Z")
    'faces_2026_01_31T02_00_00Z'
    """
    name = f"{alias}_{_plain(run_id)}"
    if len(name) > MAX_NAME:
        raise ValueError(f"collection name of alias {alias!r} and its run id exceeds {MAX_NAME} characters")
    return name


def belongs_to(alias: str, name: str, info: CollectionInfo | None) -> bool:
    """Whether a run built this collection for this alias.

    The name alone does not say it: ``faces_eu_1`` may be run ``1`` of ``faces_eu`` or run ``eu_1`` of ``faces``. The
    run id that the collection carries does. What carries none is somebody else's.
    """
    return info is not None and collection_name(alias, info.run_id) == name


def collections_of(index: VectorIndex, alias: str, warehouse: str) -> dict[str, CollectionInfo]:
    """Every collection with faces of this warehouse: those of ``alias``, and those that it built for another one.

    ``warehouse``: its identity, which a collection carries since it was made. One of ``alias`` that carries another's
    is another warehouse's: its faces are not known here, and what is not known must not be taken for not permitted.
    """
    named = [(name, index.info(name)) for name in index.list_collections()]
    return {
        name: info
        for name, info in named
        if info and (info.warehouse == warehouse or (info.warehouse is None and belongs_to(alias, name, info)))
    }


def _plain(text: str) -> str:
    return re.sub(r"[^0-9A-Za-z_]", "_", text)


def default_index(settings: Settings, rows: int, *, embedded: bool) -> IndexSpec:
    """The index of ``milvus.index_type``; AUTO is FLAT when embedded or small, then HNSW, then IVF_SQ8."""
    chosen = settings.milvus.index_type
    if chosen == "AUTO":
        chosen = "FLAT" if embedded or rows < FLAT_BELOW else "HNSW" if rows <= SQ8_ABOVE else "IVF_SQ8"
    return IndexSpec(
        chosen,
        params=_build_params(chosen, min(rows, segment_rows(settings.milvus.vector_type)))
        | settings.milvus.index_params,
    )


def _build_params(index_type: str, rows: int) -> dict[str, int]:
    """Parameters for ``rows`` in a segment."""
    match index_type:
        case "HNSW":
            return {"M": 16, "efConstruction": 200}
        case "IVF_FLAT" | "IVF_SQ8" | "SCANN":
            return {"nlist": _nlist(rows)}
        case "GPU_CAGRA":
            return {"intermediate_graph_degree": 128, "graph_degree": 64}
        case "IVF_PQ":
            return {"nlist": _nlist(rows), "m": PQ_BYTES, "nbits": 8}
        case _:
            return {}


def _nlist(rows: int) -> int:
    """About 4 √(rows of a segment) lists, as Milvus's performance FAQ has it, as a power of two of at least 16."""
    return int(1 << round(math.log2(max(16.0, 4.0 * math.sqrt(rows)))))
