"""Whether something stands at the address of an image that a source lists no more."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from udfs.listing import occupied
from udfs.sources import ReadSpec

pytestmark = pytest.mark.unit


def found(root: Path, *uris: Path | str) -> list[str]:
    """Of these addresses those at which something stands."""
    spec = ReadSpec(timeout_s=5.0, retries=0, patience_s=0.0, max_bytes=1000, keep_bytes=False, roots=(str(root),))
    named = [str(uri) for uri in uris]
    batch = pa.record_batch({"image_id": named, "uri": named})
    (answer,) = occupied(str(root), spec)(iter([batch]))
    return [str(name) for name in answer.column("image_id").to_pylist()]


def test_whatever_stands_there_counts_and_nothing_does_not(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    (root / "anna").mkdir(parents=True)
    (root / "page").write_text("<html>")
    (root / "dangling").symlink_to(tmp_path / "not mounted")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "#1").write_bytes(b"")
    there = [root / "page", root / "anna", root / "dangling", root / "linked" / "1.jpg", root / "#1"]
    gone = [root / "gone", root / "anna" / "1.jpg", root / "page" / "1.jpg", root / "no folder" / "1.jpg"]
    assert found(root, *there, *gone) == [str(place) for place in there]


def test_of_a_member_it_is_the_shard(tmp_path: Path) -> None:
    shard = tmp_path / "a#b.tar"
    shard.write_bytes(b"")
    assert found(tmp_path, f"{shard}#1.jpg", f"{tmp_path}/a#c.tar#1.jpg") == [f"{shard}#1.jpg"]
    # A source may be one shard, or one file.
    assert found(shard, f"{shard}#1.jpg", f"{shard}#2#3") == [f"{shard}#1.jpg", f"{shard}#2#3"]


def test_what_cannot_be_seen_may_be_there(tmp_path: Path) -> None:
    too_long = tmp_path / ("x" * 300)
    assert found(tmp_path, too_long) == [str(too_long)]
