"""Delta tables as constants: columns, partitions, properties, and the version of each.

No column that could name a person appears in `delta.dataSkippingStatsColumns`: statistics are written to
`_delta_log` and outlive VACUUM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_COMMON: Final = {"delta.enableDeletionVectors": "true"}

#: A property of `processing_basis` since it was made: whatever keys names in it, its id stands in `pseudonym_keys`.
KEYS_NOTED: Final = "face_reindex.keys_noted"

RECORD_STRUCT: Final = "struct<record_id: string, principal: string, box: array<float>>"


# Ids of records were once stored with the white space that stood about them in a file; now they are read without it.
_ABOUT: Final = r"r'^[\p{{Z}}\p{{Cc}}\p{{Cf}}]+|[\p{{Z}}\p{{Cc}}\p{{Cf}}]+\z'"
_PLAIN_IDS: Final = (
    f"UPDATE {{table}} SET record_id = regexp_replace(record_id, {_ABOUT}, '') WHERE record_id RLIKE {_ABOUT}",  # noqa: S608 - constants
)


@dataclass(frozen=True)
class TableSpec:
    """One Delta table. ``columns`` is DDL; ``migrations[n]`` is the SQL that lifts version n to n + 1."""

    name: str
    columns: str
    stats_columns: str
    partition_by: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    migrations: tuple[tuple[str, ...], ...] = ()

    @property
    def version(self) -> int:
        """The schema version that this code writes: 1 plus one for each migration."""
        return 1 + len(self.migrations)

    def all_properties(self) -> dict[str, str]:
        """Delta table properties, the schema version included."""
        return {
            **_COMMON,
            **self.properties,
            "delta.dataSkippingStatsColumns": self.stats_columns,
            "face_reindex.schema_version": str(self.version),
        }


IMAGES: Final = TableSpec(
    "images",
    # `part` groups images that were ingested together. It is the unit that embedding reads, so that a chunk opens
    # only its own files and no image byte is ever shuffled.
    "part int, image_id string, content binary, uri string, content_sha256 string, byte_size bigint, "
    "source_batch_id string, ingested_at timestamp, by_uri boolean, changed_at timestamp, root string",
    stats_columns="ingested_at",
    partition_by=("part",),
    # `by_uri`: no bytes are stored, so that its rows can be spread over tasks. Null, in rows of version 1, is false.
    # `changed_at`: when other bytes came in place of the first ones; null: never. `root`: the place of the source,
    # outside of which `uri` is not read; null, in rows of version 2: only what `sources.roots` allows is.
    migrations=(
        ("ALTER TABLE {table} ADD COLUMNS (by_uri boolean)",),
        ("ALTER TABLE {table} ADD COLUMNS (changed_at timestamp, root string)",),
    ),
)

PROCESSING_BASIS: Final = TableSpec(
    "processing_basis",
    "record_id string, schema_version string, pii_principal_id string, "
    "processing struct<purposes: array<string>, lawful_basis: string, special_category_condition: string, "
    "pii_controllers: array<string>, collection_method: string, retention_period: string, jurisdiction: string, "
    "withdrawal_method: string, impact_assessment: string, privacy_notice: string>, "
    "parties array<struct<party_id: string, role: string>>, "
    "events array<struct<event_time: timestamp, validity_duration: string, event_type: string, event_state: string>>, "
    "source_batch_id string, face_box array<float>, last_interaction_at timestamp, expires_at timestamp, "
    "written_release_ref string, authority_disclosure_ref string, legal_hold_ref string, "
    "content_digest string, recorded_at timestamp, authority_disclosed_at timestamp",
    stats_columns="recorded_at",
    properties={"delta.enableChangeDataFeed": "true", KEYS_NOTED: "true"},
    migrations=(("ALTER TABLE {table} ADD COLUMNS (authority_disclosed_at timestamp)",), _PLAIN_IDS),
)

# Lines of a basis file that could not be read. Not their text, which may hold names: where they stand, and why.
BASIS_QUARANTINE: Final = TableSpec(
    "basis_quarantine",
    "record_id string, file string, reason string, line_digest string, recorded_at timestamp",
    stats_columns="recorded_at",
    migrations=(_PLAIN_IDS,),
)

#: In the place of a hash, of a link that came before its image: it is for what the next ingestion of that brings, and
#: not for what may be there by other ways, as with a table that was restored. Begins as hashes of unread content do.
AWAITED: Final = "unread:AWAITED"

# A link is its own row and not a column of `images`, so that a consent which comes later does not rewrite the image.
BASIS_LINKS: Final = TableSpec(
    "basis_links",
    # `content_sha256`: the bytes that it was given for; AWAITED; null, in rows of earlier releases: the first ones that
    # come under this id.
    "image_id string, record_id string, recorded_at timestamp, content_sha256 string",
    stats_columns="recorded_at",
    migrations=(_PLAIN_IDS, ("ALTER TABLE {table} ADD COLUMNS (content_sha256 string)",)),
)

SOURCE_BATCHES: Final = TableSpec(
    "source_batches",
    "source_batch_id string, supplier string, collection_method string, assessment_ref string, "
    "assessed_at timestamp, state string, recorded_at timestamp",
    stats_columns="recorded_at",
)

IMAGE_STATUS: Final = TableSpec(
    "image_status",
    # (image_id, input_digest, model_fingerprint) says what was computed from what; rows are only added when an
    # image is computed or decided anew.
    "image_id string, input_digest string, model_fingerprint string, status string, reason string, width int, "
    "height int, faces int, dropped struct<too_small: int, low_confidence: int, over_limit: int, uncovered: int>, "
    "run_id string, decided_at timestamp",
    stats_columns="decided_at",
)

EMBEDDINGS: Final = TableSpec(
    "embeddings",
    "model_fingerprint string, face_id bigint, image_id string, input_digest string, face_index int, "
    "box array<float>, landmarks array<float>, confidence float, embedding array<float>, "
    "basis_record_ids array<string>, run_id string",
    # Not face_id: a hash skips nothing, and statistics outlive the erasure of the face.
    stats_columns="run_id",
    partition_by=("model_fingerprint",),
    migrations=(("ALTER TABLE {table} SET TBLPROPERTIES ('delta.dataSkippingStatsColumns' = 'run_id')",),),
)

# Faces whose rows a night deleted because nothing permits them any more, written down before: collections may hold
# their keys still. Destroyed with what they name, and when every collection was compared with what is permitted.
REMOVED_FACES: Final = TableSpec(
    "removed_faces",
    "face_id bigint, image_id string, basis_record_ids array<string>, recorded_at timestamp",
    stats_columns="recorded_at",
)

RUNS: Final = TableSpec(
    "runs",
    "run_id string, job string, state string, exit_code int, started_at timestamp, ended_at timestamp, "
    "settings_digest string, model_fingerprint string, weights string, collection string, inputs string, "
    "counts string, message string, recorded_at timestamp, policy_digest string",
    stats_columns="recorded_at",
    migrations=(("ALTER TABLE {table} ADD COLUMNS (policy_digest string)",),),
)

RUN_STEPS: Final = TableSpec(
    "run_steps",
    "run_id string, step string, state string, started_at timestamp, ended_at timestamp, seconds double, "
    "result string, fencing_token bigint",
    stats_columns="ended_at",
)

LEASES: Final = TableSpec(
    "leases",
    "name string, token bigint, run_id string, action string, at timestamp, expires_at timestamp",
    stats_columns="token",
)

# An erasure as it was asked for, written before anything is destroyed. It names nobody: `target` is a keyed digest.
ERASURE_REQUESTS: Final = TableSpec(
    "erasure_requests",
    "request_id string, kind string, target string, key_id string, run_id string, requested_at timestamp",
    stats_columns="requested_at",
)

# What a request has yet to destroy. These rows do name things, and are themselves destroyed when all of it is gone.
ERASURE_ITEMS: Final = TableSpec(
    "erasure_items",
    "request_id string, kind string, value string, image_id string",
    stats_columns="kind",
)

ERASURE_STEPS: Final = TableSpec(
    "erasure_steps",
    "request_id string, step string, run_id string, result string, recorded_at timestamp",
    stats_columns="recorded_at",
)

TOMBSTONES: Final = TableSpec(
    "tombstones",
    "kind string, key_id string, digest string, request_id string, recorded_at timestamp",
    stats_columns="recorded_at",
)

# Ids of the keys that names of persons were looked up under. Not the keys; a key that is here may not leave the ring.
PSEUDONYM_KEYS: Final = TableSpec(
    "pseudonym_keys",
    "key_id string, first_used_at timestamp",
    stats_columns="first_used_at",
)

AUDIT_EVENTS: Final = TableSpec(
    "audit_events",
    "seq bigint, at timestamp, kind string, run_id string, facts string, previous string, digest string",
    stats_columns="seq",
)

ALL_TABLES: Final = (
    IMAGES,
    PROCESSING_BASIS,
    BASIS_QUARANTINE,
    BASIS_LINKS,
    SOURCE_BATCHES,
    IMAGE_STATUS,
    EMBEDDINGS,
    REMOVED_FACES,
    RUNS,
    RUN_STEPS,
    LEASES,
    ERASURE_REQUESTS,
    ERASURE_ITEMS,
    ERASURE_STEPS,
    TOMBSTONES,
    PSEUDONYM_KEYS,
    AUDIT_EVENTS,
)
