"""One person, one pseudonym (Guarantees 13 and 16): which of a name's pseudonyms a record is stored under.

Coverage counts recorded persons, and an erasure goes by pseudonym. So a person who is known keeps the pseudonym that
the warehouse has, whatever key or rule is current, and one who was erased comes back under the pseudonym that is
barred. That needs every key that names were ever keyed with: without one of them names are not taken.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.errors import GovernanceError, SettingsError
from jobs.governance.tombstones import SUBJECT, KeyRing, Stones, is_guessable
from jobs.schemas import KEYS_NOTED, PROCESSING_BASIS, PSEUDONYM_KEYS, TOMBSTONES
from jobs.tables.store import looked_up, materialise

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.governance.pseudonyms import Pseudonyms
    from jobs.settings import Settings
    from jobs.tables.store import Warehouse


def check_keys(warehouse: Warehouse, settings: Settings, say: Callable[[str], None]) -> None:
    """See that no key is taken into use that can be guessed; of one that is in use already ``say`` tells.

    Raises:
        SettingsError: the current key of a ring is too short, and nothing was keyed with it yet.
    """
    rings = {"FACE_REINDEX_HMAC_KEY": settings.hmac_key, "FACE_REINDEX_TOMBSTONE_KEYS": settings.tombstone_keys}
    for name, secret in rings.items():
        ring = KeyRing.parse(secret)
        if not ring.keys or not is_guessable(ring.keys[ring.current]):
            continue
        fault = f"{name}: the first key can be guessed, and with it what it hides: names, and who was erased."
        if not _in_use(warehouse, ring.current, for_names=secret is settings.hmac_key):
            raise SettingsError(fault, hint="take 32 characters or more, as from `openssl rand -hex 32`.")
        say(f"{fault} Put one from `openssl rand -hex 32` in front of it, and keep it in the ring.")


def _in_use(warehouse: Warehouse, key_id: str, *, for_names: bool) -> bool:
    keys, stones = (warehouse.read(spec).select("key_id") for spec in (PSEUDONYM_KEYS, TOMBSTONES))
    if not keys.unionByName(stones).where(F.col("key_id") == key_id).isEmpty():
        return True
    # A release of the first rule for names left no id of what it keyed them with. Pseudonyms that look like its own may
    # as well have come in a file.
    first = warehouse.read(PROCESSING_BASIS).where(F.col("pii_principal_id").startswith("hmac:"))
    if not for_names or not keys.isEmpty() or first.isEmpty():
        return False
    return not warehouse.has_property(PROCESSING_BASIS, KEYS_NOTED)


def keep_keys(warehouse: Warehouse, names: Pseudonyms, *, now: datetime) -> None:
    """Note that names are keyed with the ring of ``names``, before they are.

    Raises:
        GovernanceError: names were keyed with a key that is not in the ring, so that persons would not be recognised.
    """
    known = {row["key_id"] for row in warehouse.read(PSEUDONYM_KEYS).select("key_id").distinct().collect()}
    ring = set(names.ring.keys)
    if lost := sorted(known - ring):
        raise GovernanceError(
            f"Names of persons were keyed with key {', '.join(lost)}, which is not in the ring: who is stored or was "
            "erased under it would not be recognised.",
            hint="add that key to FACE_REINDEX_HMAC_KEY (after the current one, separated by a comma).",
        )
    fresh = [(key_id, now) for key_id in names.ring.keys if key_id not in known]
    if fresh and not warehouse.read_only:
        warehouse.append(warehouse.spark.createDataFrame(fresh, PSEUDONYM_KEYS.columns), PSEUDONYM_KEYS)


def identified(
    warehouse: Warehouse, records: DataFrame, names: Pseudonyms | None, stones: Stones, *, now: datetime
) -> DataFrame:
    """``records`` with one `pii_principal_id` a person, chosen of `pseudonyms` where a file named persons.

    Of a person's pseudonyms (array, the current one first) that with a tombstone is taken, else the one that records
    are stored under, else the current one. Spellings that the current rule makes one are one person.

    Raises:
        GovernanceError: a key of pseudonyms or of tombstones is missing in its ring.
    """
    if "pseudonyms" not in records.columns:
        return records
    current = F.get("pseudonyms", F.lit(0))
    people = materialise(records.where(current.isNotNull()).select(current.alias("person"), "pseudonyms").distinct())
    if names is None or people.isEmpty():
        return records.drop("pseudonyms")
    keep_keys(warehouse, names, now=now)
    ways = people.select("person", F.posexplode("pseudonyms").alias("place", "pseudonym"))
    ways = ways.groupBy("person", "pseudonym").agg(F.min("place").alias("place"))
    stored = warehouse.read(PROCESSING_BASIS).select(F.col("pii_principal_id").alias("pseudonym")).distinct()
    ways = ways.join(stored.withColumn("stored", F.lit(True)), "pseudonym", "left")
    erased = stones.barring(ways.select("pseudonym").distinct(), {SUBJECT: "pseudonym"}, "pseudonym")
    if erased is None:
        ways = ways.withColumn("erased_at", F.lit(None).cast("timestamp"))
    else:
        ways = ways.join(erased.withColumnRenamed("row_key", "pseudonym"), "pseudonym", "left")
    # The least of these: false comes before true.
    order = F.struct(F.col("erased_at").isNull(), F.col("stored").isNull(), "place")
    chosen = ways.groupBy("person").agg(F.min_by("pseudonym", order).alias("chosen"))
    # Few: those whom the warehouse knows by an earlier key or rule.
    chosen = looked_up(materialise(chosen.where("chosen != person")))
    return (
        records.withColumn("person", current)
        .join(chosen, "person", "left")
        .withColumn("pii_principal_id", F.coalesce("chosen", "person", "pii_principal_id"))
        .drop("person", "chosen", "pseudonyms")
    )
