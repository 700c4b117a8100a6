"""Pictures whose faces are known by construction, and a network that reads them instead of seeing.

A picture is a small PNG with a text in it: who it shows, and where. The vector of a face is a hash of its person and of
the picture's bytes, so that a vector alone, found in whatever place, tells whose face it is and of which picture.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.histories.oracle import UNREAD
from udfs.arrays import EMBEDDING_DIM

if TYPE_CHECKING:
    import pyarrow as pa

FINGERPRINT = hashlib.sha256(b"a network that reads").hexdigest()
WIDTH, HEIGHT = 200, 100
#: Left and right half of a picture: where the first and the second person are.
BOXES = ((5.0, 5.0, 45.0, 45.0), (105.0, 5.0, 145.0, 45.0))
#: What a server sends in place of a picture: no picture is read from it.
ERROR_PAGE = b"<html><body>503 Service Unavailable</body></html>"
NOBODYS_BOX = (55.0, 55.0, 95.0, 95.0)
Shown = tuple[tuple[str, tuple[float, ...]], ...]


def picture(shown: Shown, version: str) -> bytes:
    """The bytes of a picture that shows these persons in these boxes; another ``version`` is other bytes."""
    text = json.dumps({"shown": shown, "version": version}).encode()
    row = b"\0" + bytes(WIDTH)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"tEXt", b"faces\0" + text), (b"IDAT", zlib.compress(row * HEIGHT)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def shown_in(data: bytes) -> Shown:
    """Who a picture shows, and where."""
    if data == ERROR_PAGE:
        return ()
    at = data.index(b"tEXtfaces\0")
    size = struct.unpack(">I", data[at - 4 : at])[0]
    text = data[at + 4 : at + 4 + size].split(b"\0", 1)[1]
    return tuple((person, tuple(box)) for person, box in json.loads(text)["shown"])


def digest_of(data: bytes) -> str:
    """What stands for a picture's bytes; for all that are none the same."""
    if data == ERROR_PAGE:
        return UNREAD
    return hashlib.sha256(data).hexdigest()


def vector_of(person: str, content: str) -> np.ndarray:
    """The vector of a face: random, of unit length, and the same each time."""
    seed = int(hashlib.sha256(f"{person} in {content}".encode()).hexdigest()[:16], 16)
    vector = np.random.default_rng(seed).standard_normal(EMBEDDING_DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def label_of(vector: Any) -> bytes:
    """By what a vector is known again, also where it was rounded: the signs of its first numbers."""
    return np.packbits(np.asarray(vector[:128], np.float32) > 0).tobytes()


def embed_arrow(
    spec: Any, counted: Any = None, *_: Any, **__: Any
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """In place of `udfs.spark.embed_arrow`: the same rows, decided by the same rules of coverage, without a network."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        # Not by udfs.spark, which loads torch into every worker.
        schema = _result_schema()
        for batch in batches:
            yield pa.RecordBatch.from_pylist([_result(image) for image in batch.to_pylist()], schema=schema)

    return run


def _result_schema() -> pa.Schema:
    """`udfs.spark.RESULT_SCHEMA`, as Arrow's."""
    import pyarrow as pa

    numbers, texts = pa.list_(pa.float32()), pa.list_(pa.string())
    face = {"face_index": pa.int32(), "box": numbers, "landmarks": numbers, "confidence": pa.float32(),
            "basis_record_ids": texts, "embedding": numbers}  # fmt: skip
    dropped = dict.fromkeys(("too_small", "low_confidence", "over_limit", "uncovered"), pa.int32())
    return pa.schema(
        {"image_id": pa.string(), "status": pa.string(), "reason": pa.string(), "width": pa.int32(),
         "height": pa.int32(), "faces": pa.list_(pa.struct(face)), "dropped": pa.struct(dropped),
         "device": pa.string(), "network_s": pa.float32(), "elapsed_s": pa.float32()}
    )  # fmt: skip


def _result(image: dict[str, Any]) -> dict[str, Any]:
    from udfs.coverage import CoveredPrincipal, assign_records

    shown, content = shown_in(image["content"]), digest_of(image["content"])
    covered = [
        CoveredPrincipal(c["record_id"], c["principal"], None if c["box"] is None else tuple(c["box"]))
        for c in image["covered"]
    ]
    records = assign_records([box for _, box in shown], covered).records
    faces = [
        {"face_index": number, "box": list(box), "landmarks": [1.0] * 10, "confidence": 0.99,
         "basis_record_ids": list(ids), "embedding": vector_of(person, content)}
        for number, ((person, box), ids) in enumerate(zip(shown, records, strict=True))
        if ids is not None
    ]  # fmt: skip
    status, reason = ("embedded", "") if faces else ("uncovered_faces", "UNCOVERED_FACES")
    dropped = {"too_small": 0, "low_confidence": 0, "over_limit": 0, "uncovered": len(shown) - len(faces)}
    return {"image_id": image["image_id"], "status": status, "reason": reason, "width": WIDTH, "height": HEIGHT,
            "faces": faces, "dropped": dropped, "device": "none", "network_s": 0.0, "elapsed_s": 0.0}  # fmt: skip
