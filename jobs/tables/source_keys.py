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


def is_hash(image_id: Column) -> Column:
    """Whether an id has the form of `hashed_id`, as ids of a table's own may have, too."""
    return image_id.rlike(_HASH)


def source_key(prefixes: Column | None = None) -> Column:
    """Of rows of `images`: the path below the folder, a shard's key, or a table's own id; null: it is not kept.

    ``prefixes``: what the ids of tables begin with in the row's batch, as far as it is on record (`namings_on_record`);
    null: nothing is. A basis file names an image without it. Null as well where several of them could be meant.
    """
    image_id = F.col("image_id")
    own = image_id
    if prefixes is not None:
        fitting = F.filter(prefixes, lambda prefix: F.startswith(image_id, prefix))
        rest = F.substring(image_id, F.length(F.get(fitting, F.lit(0))) + 1, F.length(image_id))
        own = F.when(prefixes.isNull(), image_id).when(F.size(fitting) == 1, rest)
    return F.coalesce(key_of_name(), F.when(~is_hash(image_id), own))


def key_of_name() -> Column:
    """Of rows of `images`: the name that the id is a hash of; null: it is none, or the name is not kept.

    A path is not stored a second time: it is found in `uri`, and is right where it makes the image's id.
    """
    uri, place = F.col("uri"), F.concat(F.regexp_replace("root", "/+$", ""), F.lit("/"))
    shard, member = F.regexp_extract("uri", _SHARD, 2), F.regexp_extract("uri", _SHARD, 3)
    above = F.regexp_extract("uri", _SHARD, 1)
    in_shard = F.concat(shard, F.lit("/"), F.regexp_replace(member, _STEM, "$1$2"))
    candidates = [_below(uri, place), in_shard, _below(F.concat(above, in_shard), place), uri]
    batch_id, image_id = F.col("source_batch_id"), F.col("image_id")
    return F.coalesce(*(F.when(hashed_id(batch_id, key) == image_id, key) for key in candidates))


def _below(address: Column, place: Column) -> Column:
    return F.when(address.startswith(place), F.substring(address, F.length(place) + 1, F.length(address)))
