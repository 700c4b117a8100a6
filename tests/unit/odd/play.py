"""How what people bring is played: by the cheapest real path, so without Spark.

A function for each kind, named in `PLAYERS`. Each takes a folder of its own and what is brought, and returns what an
entry has as its outcome; what is refused is raised as it is to whoever runs a job.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql.types import DataType, StructType

from jobs.erasure.asked import asked_for
from jobs.governance.basis_lines import Line, csv_layout, csv_reader, other_form
from jobs.governance.batch_file import read_batch
from jobs.governance.pseudonyms import Pseudonyms
from jobs.governance.short_lines import ShortLine, short_lines
from jobs.governance.tombstones import KeyRing
from jobs.settings import Settings, all_keys, load_settings
from jobs.tables.foreign import Layout, table_layout
from tests.golden.support import small_astronaut
from tests.unit.odd.corpus import Refused, put, tar_of
from tests.unit.udfs.decoding import PARAMS
from tests.unit.udfs.listed import JPEG, ends, of_shard, outcomes
from udfs.decode import DecodeFailure, decode
from udfs.quiet import silence_decoders

KEY = "a test's key of more than 32 letters"
NAMES = Pseudonyms(KeyRing.of([KEY]))
TERMS = {
    "source_batch_id": "b1", "purposes": "p", "pii_controllers": "c", "lawful_basis": "eu-gdpr:A6-1-a",
    "special_category_condition": "eu-gdpr:A9-2-a", "collection_method": "uploaded_by_subject",
    "retention_period": "P2Y", "jurisdiction": "EU", "withdrawal_method": "w", "impact_assessment": "i",
    "privacy_notice": "n", "validity_duration": "P1Y", "event_type": "explicit_consent", "event_state": "ConsentGiven",
}  # fmt: skip


def file(folder: Path, brought: tuple[bytes, bytes]) -> str:
    """Its name and its bytes; how it ends: as an image (""), or by which reason."""
    name, data = brought
    put(bytes(folder) + b"/" + name, data)
    ((end, count),) = outcomes(folder).items()
    assert count == 1
    return end


def in_folder(folder: Path, brought: bytes) -> str:
    """The name of a folder; how a picture in it ends, or the folder."""
    put(bytes(folder) + b"/" + brought + b"/a.jpg", JPEG)
    (end,) = outcomes(folder)
    return end


def entry(folder: Path, brought: Callable[[Path], None], below: str = "") -> str:
    """What makes an entry beside a picture, which is taken in any case; how the entry ends ("": as an image, or none).

    ``below``: the folder of both, in the one that is listed.
    """
    (folder / below).mkdir(parents=True, exist_ok=True)
    (folder / below / "good.jpg").write_bytes(JPEG)
    brought(folder / below)
    found = outcomes(folder)
    found[""] -= 1
    # (Beside a link there may be a hidden folder, with what it leads to.)
    ends = [end for end, count in found.items() if count]
    assert found[""] >= 0
    return "" if "" in ends or not ends else ends[0]


def member(folder: Path, brought: tuple[str, bytes]) -> str:
    """Its name and its bytes; how it ends, in a shard of its own."""
    (folder / "s.tar").write_bytes(tar_of([brought]))
    (end,) = ends(of_shard(folder / "s.tar"))
    return end


def shard(folder: Path, brought: tuple[str, bytes]) -> dict[str, int]:
    """Its name and its bytes; how its members end, and how many so."""
    name, data = brought
    (folder / name).write_bytes(data)
    return dict(ends(of_shard(folder / name)))


def picture(_: Path, brought: Callable[[], bytes]) -> str:
    """What makes its bytes; its size and what it looks like beside the picture that it was made of, or why not."""
    try:
        with warnings.catch_warnings():
            # As workers do, where pytest makes errors of warnings.
            silence_decoders()
            pixels = decode(brought(), PARAMS).pixels.astype(int)
    except DecodeFailure as failure:
        return str(failure)
    whole = small_astronaut(96).astype(int)
    looks = {
        "as it was": whole, "turned by 180 degrees": whole[::-1, ::-1], "as bright as it was": whole[:, :, [1, 1, 1]],
    }  # fmt: skip
    like = [name for name, other in looks.items() if np.abs(pixels - other).mean() < 8]
    return f"{pixels.shape[1]} x {pixels.shape[0]}, {like[0] if like else 'as another one'}"


def table(_: Path, brought: Mapping[str, Any]) -> Layout:
    """Its columns and their types; what each is."""
    return table_layout(_schema(brought), "photos")


def _schema(columns: Mapping[str, Any]) -> StructType:
    found = StructType()
    for name, inner in columns.items():
        found.add(name, inner if isinstance(inner, DataType) else _schema(inner))
    return found


def csv_of_records(_: Path, brought: bytes) -> list[str]:
    """A file; of each line the record and its images, or the reason and whom it may have named."""
    # As Spark parts a file.
    lines = re.split(rb"\r\n|\r|\n", brought)
    layout = csv_layout(lines[:2])
    read = csv_reader(layout.names, NAMES.of, layout.separator)
    return [_told(line) for raw in lines if (line := read(raw))]


def _told(line: Line) -> str:
    if line.record is None:
        return f"{line.reason}: {', '.join(name or 'anybody' for name in line.named)}"
    assert line.record["pseudonyms"]
    return f"{line.record['record_id']}: {', '.join(line.record['images'])}"


def json_lines(_: Path, brought: bytes) -> None:
    """The first line of a file that is said to have records as JSON lines; nothing, where it may."""
    if other := other_form(brought):
        raise ValueError(other)


def csv_in_short_form(_: Path, brought: bytes) -> list[str | Refused]:
    """A file; of each line its image, or its number and what is wrong."""
    return [_short(line) for line in short_lines(brought, {**TERMS, "schema_version": "1.0"}, NAMES.of)]


def _short(line: ShortLine) -> str | Refused:
    if line.fault:
        return Refused(f"{line.line}: {line.fault}")
    assert line.record is not None
    return f"{line.image}, below {line.folder}" if line.pattern else str(line.image)


def subject_file(folder: Path, brought: bytes) -> int:
    """A file; how many people are to be erased by it."""
    (folder / "names.txt").write_bytes(brought)
    settings = load_settings(environ={"FACE_REINDEX_HMAC_KEY": KEY})
    found = asked_for(settings, subject=None, subject_file=str(folder / "names.txt"), image=None, batch=None)
    return len(found)


def batch_file(folder: Path, brought: bytes) -> str | None:
    """A file; the id of its batch."""
    (folder / "b.yaml").write_bytes(brought)
    return read_batch(str(folder / "b.yaml"))["source_batch_id"]


def settings_file(folder: Path, brought: bytes) -> dict[str, Any]:
    """A file; what is set by it, and other than by default."""
    (folder / "s.yaml").write_bytes(brought)
    found, default = load_settings(folder / "s.yaml", environ={}), load_settings(environ={})
    return {key: value for key in all_keys() if (value := _value(found, key)) != _value(default, key)}


def _value(settings: Settings, key: str) -> Any:
    return attrgetter(key)(settings)


PLAYERS: dict[str, Callable[[Path, Any], Any]] = {
    "file": file, "folder": in_folder, "entry of a folder": entry, "member of a shard": member, "shard": shard,
    "picture": picture, "table of images": table, "CSV of records": csv_of_records,
    "records as JSON lines": json_lines, "CSV in short form": csv_in_short_form, "subject file": subject_file,
    "batch file": batch_file, "settings": settings_file,
}  # fmt: skip
