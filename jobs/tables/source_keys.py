"""What the source calls an image: the name that basis files use, beside the hash that is its id."""

from __future__ import annotations

from typing import Final

from pyspark.sql import Column
from pyspark.sql import functions as F

_SHARD: Final = r"(?i)^(.*?)([^/]*\.(?:tar|tar\.gz|tgz))#(.*)$"
# What is left of a member's path in its key: its last part ends before the first dot.
_STEM: Final = r"(^|/)([^/.]*)[^/]*$"
_HASH: Final = r"\A[0-9a-f]{32}\z"


def hashed_id(batch_id: Column, source_key: Column) -> Column:
    """The id of an image that has a name: a hash, so that a name of a person stays out of every other table."""
    digest = F.substring(F.sha2(F.concat_ws("\x00", batch_id, source_key), 256), 1, 32)
    return F.when(source_key.isNotNull(), digest)


def source_key() -> Column:
    """Of rows of `images`: the path below the folder, a shard's key, or a table's own id; null: it is not kept.

    A path is not stored a second time: it is found in `uri`, and is right where it makes the image's id.
    """
    uri, place = F.col("uri"), F.concat(F.regexp_replace("root", "/+$", ""), F.lit("/"))
    shard, member = F.regexp_extract("uri", _SHARD, 2), F.regexp_extract("uri", _SHARD, 3)
    above = F.regexp_extract("uri", _SHARD, 1)
    in_shard = F.concat(shard, F.lit("/"), F.regexp_replace(member, _STEM, "$1$2"))
    candidates = [_below(uri, place), in_shard, _below(F.concat(above, in_shard), place), uri]
    batch_id, image_id = F.col("source_batch_id"), F.col("image_id")
    known = [F.when(hashed_id(batch_id, key) == image_id, key) for key in candidates]
    return F.coalesce(*known, F.when(~image_id.rlike(_HASH), image_id))


def _below(address: Column, place: Column) -> Column:
    return F.when(address.startswith(place), F.substring(address, F.length(place) + 1, F.length(address)))
