"""All settings, as one strict model: YAML file, then ``--set key=value``, secrets from the environment.

>>> load_settings(overrides=["warehouse=/tmp/faces", "milvus.shards=4"]).milvus.shards
4
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from jobs.addresses import holds_credentials, without_credentials
from jobs.errors import SettingsError
from jobs.strict_yaml import Lines, read_values
from jobs.texts import text_of

ENV_PREFIX = "FACE_REINDEX_"
SECRETS = ("milvus_token", "milvus_user", "milvus_password", "milvus_reader_token", "hmac_key", "tombstone_keys")


#: Where a value is a place, or a list of such.
PLACES: Final = frozenset(
    {
        "warehouse", "governance.jurisdictions", "sources.roots", "erasure.evidence_path", "model.weights",
        "model.cache_dir", "executor.gpu_discovery_script", "staging.path", "milvus.uri", "milvus.rest_uri",
        "milvus.ca_file", "milvus.client_cert_file", "milvus.client_key_file", "metrics.file",
    }
)  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truths_only_where_asked_for(cls, value: Any, info: ValidationInfo) -> Any:
        """`backup_days: no` is not 0, and `warehouse: on` no text."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        section = isinstance(wanted, type) and issubclass(wanted, BaseModel)
        if wanted is not bool and not section and _holds_truth(value):
            raise ValueError("true, false, yes, no, on and off are neither number nor text; put quotes about a text")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("must be a number of 64 bits")
        return value


def _holds_truth(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_truth, value.values()))
    return any(map(_holds_truth, value)) if isinstance(value, list) else isinstance(value, bool)


# What jobs reckon with: longer times end in an overflow of the clock, or of a date.
_CENTURY_DAYS: Final = 36_525
_CENTURY_H: Final = 24 * _CENTURY_DAYS
_CENTURY_S: Final = 3_600 * _CENTURY_H


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


# Control characters, formats of no width, blanks that are none of the keyboard's.
_UNSEEN: Final = ("Cc", "Cf", "Zl", "Zp", "Zs")
# What a shell makes something else of, and a word processor's quotes: no place is meant by it as it stands.
_SHELL: Final = re.compile(r"\$\{?[A-Za-z_]\w*|%[A-Za-z_]\w*%", re.ASCII)
_QUOTES: Final = '\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"`'


def _shown(value: str) -> str:
    if any(character != " " and unicodedata.category(character) in _UNSEEN for character in value):
        raise ValueError("holds a line break or another character that does not show; write it as it is called")
    return value


def _as_it_stands(value: str) -> str:
    _shown(value)
    if _SHELL.match(value):
        raise ValueError("begins with a variable of a shell, which is not looked up here; write the whole path")
    if value.strip(_QUOTES) != value or value[:1] == value[-1:] == "'":
        raise ValueError("has quotes that YAML does not know about it, as word processors write them; take them away")
    if value != value.strip():
        raise ValueError("begins or ends with a blank")
    if re.match(r"[A-Za-z]:[\\/]", value):
        raise ValueError("is a path of Windows, and jobs run on Linux (in WSL a drive is /mnt/c)")
    return value


def _no_home(value: str) -> str:
    if value == "~" or value.startswith("~/"):
        raise ValueError("~ is not looked up here, for a cluster's machines have other homes; write the whole path")
    return value


Name = Annotated[str, AfterValidator(_not_blank)]
#: A path or an address. Tables, receipts and lineage say where things are.
HomePlace = Annotated[str, AfterValidator(without_credentials), AfterValidator(_as_it_stands)]
Place = Annotated[HomePlace, AfterValidator(_no_home)]
NamedPlace = Annotated[Name, AfterValidator(without_credentials), AfterValidator(_as_it_stands)]


def refuse_credentials(text: str, option: str) -> None:
    """The same for a place on the command line, which ``option`` named.

    Raises:
        SettingsError: there are credentials in it; they are not repeated.
    """
    if holds_credentials(text):
        raise SettingsError(
            f"{option}: there are credentials in the address, which logs and tables would keep.",
            hint="leave them out of it, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment.",
        )


class GovernanceSettings(_Section):
    """What this index may be used for. Nothing is indexed for a purpose that is not in all three lists."""

    purposes: tuple[Name, ...] = Field((), description="Purposes this run asks for. Empty: the job refuses to start.")
    allowed_purposes: tuple[Name, ...] = Field(
        (), description="The controller's allow-list. A purpose outside it is refused, whatever a record grants."
    )
    coverage: Literal["any", "box"] = Field(
        "any",
        description="`box`: only records that say where in the picture their person's face is (`face.box`) cover "
        "anybody. `any`: one without covers its picture, as long as no more faces are found than persons recorded, and "
        "nobody else in it is refused or was erased.",
    )
    openlineage: bool = Field(
        False, description="Send OpenLineage events, by the client's own configuration (needs the extra `lineage`)."
    )
    jurisdictions: Place | None = Field(
        None, description="File of rules by jurisdiction; unset: those that come with this release."
    )


def _root(value: str) -> str:
    place = _shown(value).rstrip("/")
    if not re.fullmatch(r"/[^\x00-\x1f]+|s3a?://[A-Za-z0-9][A-Za-z0-9._-]+(/[^\x00-\x1f]*)?", place) or ".." in place:
        raise ValueError("must be an absolute folder (not /), or s3://bucket or s3://bucket/prefix")
    return place


class SourceSettings(_Section):
    """Where images may be read from."""

    roots: tuple[Annotated[str, AfterValidator(_root)], ...] = Field(
        (),
        description="Folders and `s3://bucket/prefix` that `uri` and links may lead to, besides the source's own "
        "place: what is ingested; of a table given by its path, the folder that it lies in, or its bucket.",
    )
    skip: tuple[Name, ...] = Field(
        (
            ".*", "@eaDir", "@Recycle", "@Recently-Snapshot", "@tmp", "#recycle", "#snapshot", "$RECYCLE.BIN",
            "System Volume Information", "lost+found", "__MACOSX", "Thumbs.db", "ehthumbs*.db", "desktop.ini",
            "SYNOFILE_THUMB_*", "SYNOPHOTO_THUMB_*",
        ),
        description="Names of files and folders below a source, at any depth, that are skipped and counted: what "
        "systems leave there. `*`, `?` and `[…]` as in a shell; upper and lower case are alike.",
    )  # fmt: skip


class ErasureSettings(_Section):
    """What it takes until erased data is physically gone, and what receipts say of it."""

    vacuum_hours: int = Field(
        0,
        ge=0,
        le=_CENTURY_H,
        description="Hours of table history kept after an erasure. 0: erased rows leave the files at once, and with "
        "them all time travel to before. More: the receipt names the date, and `expire` finishes then.",
    )
    milvus_gc_hours: float = Field(
        4.0,
        ge=0,
        le=_CENTURY_H,
        description="Hours until Milvus removes compacted segments (dataCoord.gc: tolerance and interval).",
    )
    milvus_queue_hours: float = Field(
        72.0, ge=0, le=_CENTURY_H, description="Hours that Milvus's message queue keeps its messages."
    )
    backup_days: int = Field(
        30, ge=0, le=_CENTURY_DAYS, description="Days until your last backup of these stores expires."
    )
    compact_timeout_s: float = Field(
        600.0,
        gt=0,
        le=_CENTURY_S,
        description="Seconds that one collection's compaction may be without progress. Then the receipt says that the "
        "rows are no longer served, and not when they are gone.",
    )
    evidence_path: Place | None = Field(
        None, description="Where receipts and the audit trail's head are written; unset: `_evidence` in the warehouse."
    )


class SyncSettings(_Section):
    """What `sync` brings into the live collection between two nights; larger changes wait for the night."""

    max_images: int = Field(10_000, ge=0, description="Images that `sync` embeds at most.")
    max_faces: int = Field(100_000, ge=0, description="Faces that `sync` adds to the live collection at most.")


class ModelSettings(_Section):
    """FaceNet's weights. Changing any of these changes the model fingerprint."""

    weights: NamedPlace = Field(
        "vggface2",
        description="`vggface2`, `casia-webface` (downloaded), `random` (seeded, untrained), a file or a URI: a "
        "`state_dict`, or a frozen graph of facenet (`.pb`).",
    )
    sha256: str | None = Field(
        None,
        description="Expected SHA-256 of the weights file (`casia-webface`: of its tensors); a mismatch stops the job.",
    )
    seed: int = Field(0, ge=0, description="Seed of `random` weights.")
    cache_dir: HomePlace = Field("~/.cache/face-reindex", description="Where downloaded weights are kept.")
    download_timeout_s: float = Field(
        60.0, gt=0, le=_CENTURY_S, description="Seconds to wait for the download to answer."
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Arithmetic of the networks.")


class DetectionSettings(_Section):
    """What counts as a face. All of it is part of the model fingerprint."""

    min_face_px: int = Field(20, ge=12, description="Smallest face, in pixels of the stored image's upright form.")
    thresholds: tuple[float, float, float] = Field(
        (0.6, 0.7, 0.7), description="P-, R- and O-Net thresholds; none above its default, so that bystanders are seen."
    )
    pyramid_factor: float = Field(
        0.709, ge=0.709, le=0.95, description="Scale step of the image pyramid; larger: more steps."
    )
    smallest_face: float = Field(
        0.05,
        gt=0,
        le=0.05,
        description="Smallest face that must be found, as a part of the image's long side; images are shrunk for "
        "detection as far as this allows (0.05: to 640 pixels). A larger value would hide bystanders.",
    )
    long_side_px: int | None = Field(
        None,
        ge=0,
        description="Detect at this long side instead of that of `smallest_face`: 640 or more; 0: full size.",
    )
    min_confidence: float = Field(
        0.9, ge=0, le=1, description="Detections below this are not embedded; they still count as people."
    )
    max_faces: int = Field(32, ge=1, description="Faces an image; the largest are kept, the rest counted.")
    crop_margin_px: int = Field(0, ge=0, lt=160, description="Margin in pixels of the 160-px crop.")
    decoder: Literal["libjpeg-turbo"] = Field("libjpeg-turbo", description="Decoder of plain JPEGs.")
    max_pixels: int = Field(100_000_000, ge=1, description="Images with more pixels are `too_large`, undecoded.")
    max_bytes: int = Field(64 * 2**20, ge=1, description="Images with more bytes are `too_large`, undecoded.")
    max_decode_bytes: int = Field(
        768 * 2**20,
        ge=2**20,
        description="Memory for decoding, of a Python worker: images that need more (7 bytes a pixel for most PNGs, 19 "
        "for WebP, by the header) are `too_large`, undecoded; the others wait for each other.",
    )
    max_scans: int = Field(
        32, ge=1, description="JPEGs with more scans are `too_large`, undecoded (libjpeg's progressive files have 10)."
    )

    @model_validator(mode="after")
    def _bystanders_are_seen(self) -> DetectionSettings:
        # Guarantee 16; `udfs.params.check_sight` holds the pipeline to the same.
        if any(own > floor for own, floor in zip(self.thresholds, (0.6, 0.7, 0.7), strict=True)):
            raise ValueError(
                "thresholds above [0.6, 0.7, 0.7] would hide bystanders; to embed fewer faces, raise min_confidence"
            )
        if self.long_side_px and self.long_side_px < 640:
            raise ValueError("long_side_px below 640 would hide bystanders; 0 is full size")
        return self


class ExecutorSettings(_Section):
    """How the work is cut. None of it moves a result."""

    chunk_images: int = Field(500_000, ge=1, description="Images a commit; a killed run repeats at most one chunk.")
    partition_images: int = Field(
        512,
        ge=1,
        description="Images a Spark task where only addresses (`uri`) are stored, spread at random. Stored bytes are "
        "cut by size instead (`spark.sql.files.maxPartitionBytes`).",
    )
    embed_batch: int = Field(
        0, ge=0, description="Face crops a forward pass; 0: 16 on a processor, 256 on a GPU (what was found fastest)."
    )
    detect_batch: int = Field(0, ge=0, description="Images detected together; 0: 16 on a processor, 64 on a GPU.")
    decode_threads: int = Field(2, ge=1, description="Decoding threads a Python worker.")
    compile: bool = Field(
        False, description="torch.compile for the embedding network: slower to start; on a processor needs a compiler."
    )
    gpus_per_task: float = Field(
        0,
        ge=0,
        description="GPU share a task, by stage-level scheduling; 0: none asked. Below 1, a worker may take that share "
        "of the GPU's memory.",
    )
    without_gpu: Literal["fail", "processor"] = Field(
        "fail",
        description="What a task does that was to compute on a GPU (by `gpus_per_task`, by its address) and cannot; "
        "`processor`: it computes on its processor, many times slower, and the run's report says so.",
    )
    gpus_per_executor: int = Field(
        1, ge=1, description="GPUs of an executor that dynamic allocation starts for the embedding stage."
    )
    gpu_discovery_script: Place | None = Field(
        None, description="Script that names those GPUs (conf/gpu-discovery.sh); needed with dynamic allocation."
    )
    read_timeout_s: float = Field(20.0, gt=0, le=_CENTURY_S, description="Seconds to read one `uri`.")
    read_retries: int = Field(3, ge=0, description="Retries of one `uri` before it is `unreadable`.")
    store_patience_s: float = Field(
        300.0,
        ge=0,
        le=_CENTURY_S,
        description="Seconds for which an object store may say that it is busy, or answer nobody, before what it has "
        "is `unreadable`. While it is silent for longer, each image has its retries only.",
    )


class TableSettings(_Section):
    """Delta tables."""

    part_images: int = Field(
        50_000, ge=1, description="Images a part (partition) of `images`: the least that a chunk can be cut to."
    )
    optimize: bool = Field(False, description="OPTIMIZE the written tables after a run.")
    vacuum_hours: int | None = Field(
        None,
        ge=0,
        le=_CENTURY_H,
        description="VACUUM after a run, keeping this many hours of history (time travel and slow readers need them); "
        "unset: never.",
    )


class StagingSettings(_Section):
    """Parquet files between Delta and Milvus."""

    path: Place | None = Field(None, description="Where Milvus can read them; default: `_staging` in the warehouse.")
    rows_per_file: int = Field(
        1_000_000, ge=1, description="Rows a file at most (2 KiB a row): an import costs seconds beside its rows."
    )


def _http(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+/?", _shown(value)):
        raise ValueError("must be http://host:port or https://host:port")
    return value


def _index(value: str) -> str:
    """A server's address whole and alone: pymilvus takes what else stands in it for something, or for nothing."""
    if "://" in value or (not value.endswith(".db") and re.fullmatch(r"\S*:\S*|\d+(?:\.\d+){3}", value)):
        host = re.fullmatch(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?/?", value, re.ASCII)
        if not host or not 0 < int(host[1] or 1) < 65_536:
            raise ValueError(
                "must be http://host:port or https://host:port, or a file that ends in .db; the database of a server "
                "is milvus.database"
            )
    return value


class MilvusSettings(_Section):
    """The vector index."""

    uri: Annotated[NamedPlace, AfterValidator(_index)] = Field(
        "face-index.db",
        description="A file: embedded milvus-lite; relative only where `warehouse` is, too (both to the folder that a "
        "job is started in). http(s)://host:port: a server.",
    )
    rest_uri: Annotated[str, AfterValidator(without_credentials), AfterValidator(_http)] | None = Field(
        None,
        description="http(s)://host:port of Milvus's REST interface, by which 2.4 and later import; unset: "
        "`milvus.uri`. Needed with TLS, where the gRPC port has none: https and the port of `proxy.http.port`.",
    )
    database: str = Field("default", description="Milvus database.")
    alias: Name = Field("faces", pattern=r"^[A-Za-z_]\w*$", description="Alias that readers use.")
    shards: int = Field(1, ge=1, le=64, description="Shards of a new collection (embedded: ignored).")
    replicas: int = Field(1, ge=1, description="Replicas in memory.")
    vector_type: Literal["float32", "float16", "bfloat16"] = Field(
        "float32",
        description="Numbers of the vectors in a new collection. The 16-bit ones halve staged files, import and what "
        "Milvus stores of the vectors (Milvus 2.4.1 and later; docs/operations.md, 16-bit vectors).",
    )
    index_type: Literal["AUTO", "FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "DISKANN", "SCANN", "GPU_CAGRA"] = (
        Field("AUTO", description="AUTO: FLAT when embedded or below 50,000 rows, HNSW to 200 million, IVF_SQ8 above.")
    )
    index_params: dict[str, int] = Field(
        {}, description="Build parameters in place of the defaults by size, such as `{M: 32, efConstruction: 400}`."
    )
    search_params: dict[str, int] = Field(
        {}, description="Search parameters for the proof in place of the defaults, such as `{ef: 256}`."
    )
    load_by: Literal["auto", "import", "insert"] = Field(
        "auto", description="auto: bulk import on a server, insert when embedded. insert: rows over RPC."
    )
    import_jobs: int = Field(4, ge=1, description="Bulk imports in flight at once; at least one a data node.")
    data_nodes: int = Field(
        1, ge=1, description="Data nodes of the server: files and jobs are spread evenly over them."
    )
    data_node_memory_gib: float = Field(8.0, gt=0, description="Memory of a data node; it bounds a file's size.")
    import_rows_per_s: int = Field(
        10_000,
        ge=1,
        description="Rows a data node imports in a second, for the plan's expected time (bench/loading.py).",
    )
    import_timeout_s: float = Field(
        3600,
        gt=0,
        le=_CENTURY_S,
        description="Seconds that bulk imports may be without progress until those that run count as stalled.",
    )
    import_attempts: int = Field(3, ge=1, description="Attempts a file, with key checks in between.")
    index_timeout_s: float = Field(
        3600, gt=0, le=_CENTURY_S, description="Seconds that an index or a load may be without progress."
    )
    ready_timeout_s: float = Field(
        180, gt=0, le=_CENTURY_S, description="Seconds to wait for a server that is out of reach."
    )
    keep_collections: int = Field(2, ge=1, description="Proven collections kept, the live one included.")
    watch_s: float = Field(
        60.0,
        ge=0,
        le=_CENTURY_S,
        description="Seconds that the alias is watched after a switch (embedded: not at all).",
    )
    watch_p99_ms: float = Field(
        1000.0,
        gt=0,
        le=_CENTURY_S,
        description="Latency (99th percentile) during the watch above which it is switched back.",
    )
    ca_file: Place | None = Field(None, description="PEM file of the authority that signed the server's certificate.")
    client_cert_file: Place | None = Field(None, description="PEM certificate of this client, for mutual TLS.")
    client_key_file: Place | None = Field(
        None, description="PEM key of that certificate. Mutual TLS needs all three files."
    )

    @model_validator(mode="after")
    def _rest_as_safe(self) -> MilvusSettings:
        if self.rest_uri and self.uri.startswith("https://") and not self.rest_uri.startswith("https://"):
            raise ValueError("rest_uri must be https:// where uri is: the token would travel in clear text")
        return self


class VerifySettings(_Section):
    """The proof before promotion."""

    recall_sample: int = Field(200, ge=1, description="Queries of the recall check.")
    recall_floor: float = Field(0.95, ge=0, le=1, description="Least recall@10 against exact search.")
    sanity: bool = Field(
        True,
        description="Do not promote an index whose vectors no trained network can have made: all nearly one, or noise, "
        "by pairs of the recall check's sample. Needs 50 faces in the sample; does nothing for `random` weights.",
    )


class LeaseSettings(_Section):
    """One writer at a time."""

    ttl_s: float = Field(600, gt=0, le=_CENTURY_S, description="A run silent for this long may be replaced by another.")


class LoggingSettings(_Section):
    """What a run says while it runs."""

    format: Literal["text", "json"] = Field(
        "text", description="Step lines on stderr: for people, or a JSON object each."
    )
    stall_after_s: float = Field(
        900,
        gt=0,
        le=_CENTURY_S,
        description="Seconds without a finished task after which a step's unfinished partitions are named.",
    )


class MetricsSettings(_Section):
    """Numbers for a monitoring system."""

    file: HomePlace | None = Field(
        None,
        description="Prometheus text file, for node_exporter's textfile collector (so its name must end in `.prom`); "
        "`{job}` in it stands for the job's name.",
    )


class PlanningSettings(_Section):
    """Prices and rates for `plan`. None of it moves a result, so none of it is part of a run's settings digest."""

    currency: str = Field("USD", description="What the prices are in.")
    gpu_hour: float | None = Field(None, ge=0, description="Price of a GPU for an hour.")
    core_hour: float | None = Field(None, ge=0, description="Price of an executors' core for an hour.")
    node_hour: float | None = Field(None, ge=0, description="Price of a Milvus data node for an hour.")
    gib_month: float | None = Field(None, ge=0, description="Price of a GiB of object storage for a month.")
    images_per_s_per_gpu: float | None = Field(
        None,
        gt=0,
        description="Images a second that a GPU embeds; unset: the last run with GPUs, else `calibrate`, else bench/.",
    )
    images_per_s_per_core: float | None = Field(
        None,
        gt=0,
        description="Images a second that a core embeds without GPUs: else the last run, `calibrate`, bench/.",
    )
    host_images_per_s_per_core: float | None = Field(
        None, gt=0, description="Images a second that a core reads, decodes and cuts for a GPU; unset: as above."
    )
    index_rows_per_s_per_core: float | None = Field(
        None, gt=0, description="Rows a second that a data node's core indexes; unset: the last run, else bench/."
    )
    cores_per_gpu: int = Field(12, ge=1, description="Cores beside each GPU of `--gpus`, where `--cores` is not given.")
    node_cores: int = Field(2, ge=1, description="Cores of a data node, which builds indexes as well (bench/: 2).")


class Settings(_Section):
    """The whole configuration of a job."""

    warehouse: Annotated[NamedPlace, AfterValidator(_no_home)] = Field(
        "warehouse", description="Path (local, s3a://…) or catalog schema (`main.faces`)."
    )
    governance: GovernanceSettings = GovernanceSettings()
    sources: SourceSettings = SourceSettings()
    erasure: ErasureSettings = ErasureSettings()
    sync: SyncSettings = SyncSettings()
    model: ModelSettings = ModelSettings()
    detection: DetectionSettings = DetectionSettings()
    executor: ExecutorSettings = ExecutorSettings()
    tables: TableSettings = TableSettings()
    staging: StagingSettings = StagingSettings()
    milvus: MilvusSettings = MilvusSettings()
    verify: VerifySettings = VerifySettings()
    lease: LeaseSettings = LeaseSettings()
    logging: LoggingSettings = LoggingSettings()
    metrics: MetricsSettings = MetricsSettings()
    planning: PlanningSettings = PlanningSettings()

    # Secrets: read from FACE_REINDEX_… only, never from a file, never printed.
    milvus_token: SecretStr | None = Field(None, exclude=True, repr=False)
    milvus_user: str | None = Field(None, exclude=True, repr=False)
    milvus_password: SecretStr | None = Field(None, exclude=True, repr=False)
    milvus_reader_token: SecretStr | None = Field(None, exclude=True, repr=False)
    hmac_key: SecretStr | None = Field(None, exclude=True, repr=False)
    tombstone_keys: SecretStr | None = Field(None, exclude=True, repr=False)

    @model_validator(mode="after")
    def _purposes_allowed(self) -> Settings:
        outside = sorted(set(self.governance.purposes) - set(self.governance.allowed_purposes))
        if outside:
            raise ValueError(f"governance.purposes asks for {outside}, not in governance.allowed_purposes")
        return self

    @property
    def warehouse_is_path(self) -> bool:
        """Whether `warehouse` is a folder or object-store prefix, rather than a catalog schema like `main.faces`."""
        return (
            "/" in self.warehouse
            or "://" in self.warehouse
            or not self.warehouse.replace("_", "a").replace(".", "a").isalnum()
        )

    @property
    def embedded(self) -> bool:
        """Whether the index is a milvus-lite file rather than a server."""
        return "://" not in self.milvus.uri

    @property
    def index_file(self) -> Path:
        """The embedded index.

        Raises:
            SettingsError: it would be another one wherever the job is started, where the warehouse is the same.
        """
        path = Path(self.milvus.uri).expanduser()
        moves = self.warehouse_is_path and "://" not in self.warehouse and not Path(self.warehouse).is_absolute()
        if not path.is_absolute() and not moves:
            raise SettingsError(
                f"milvus.uri '{self.milvus.uri}' depends on the folder that a job is started in, and `warehouse` does "
                "not: from another one, erasures and proofs would look at an empty index.",
                hint=f"give its whole path; started from here it was {path.absolute()}.",
            )
        return path

    def digest(self) -> str:
        """SHA-256 of everything that a run may not change when it is resumed; stands in the run record."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def canonical_json(self) -> str:
        """Everything but secrets, prices and how a run is watched, with sorted keys."""
        shown = self.model_dump(mode="json", exclude={"logging", "metrics", "planning"})
        return json.dumps(shown, sort_keys=True, separators=(",", ":"))


def load_settings(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read ``path``, apply ``key=value`` overrides, add secrets from the environment.

    Raises:
        SettingsError: with the file, the key and a hint, for an unknown key, a wrong value, or a secret in the file.
    """
    data, lines = _read_file(Path(path)) if path else ({}, {})
    for secret in SECRETS:
        if secret in data:
            raise SettingsError(
                f"{path}: '{secret}' is a secret.",
                hint=f"set {ENV_PREFIX}{secret.upper()} in the environment instead.",
            )
    for key in _unknown_keys(data, Settings, ""):
        raise SettingsError(f"{path}: {_line(lines, key)}unknown key '{key}'.{_hint(key)}")
    environ = os.environ if environ is None else environ
    given = [_apply_override(data, override) for override in overrides]
    for key in _unknown_keys(data, Settings, ""):
        raise SettingsError(f"--set: unknown key '{key}'.{_hint(key)}")
    secrets = {s: environ[ENV_PREFIX + s.upper()] for s in SECRETS if environ.get(ENV_PREFIX + s.upper())}
    try:
        return Settings.model_validate({**data, **secrets})
    except ValidationError as error:
        place, what = _described(error)
        if not path or any(f"{place}.".startswith(f"{key}.") for key in given):
            raise SettingsError(f"--set: {place}: {what}.") from None
        raise SettingsError(f"{path}: {_line(lines, place)}{place}: {what}.") from None


def _line(lines: Lines, place: str) -> str:
    """Where a key of the file stands, to begin a sentence with; of what is not there, nothing."""
    return f"line {lines[place]}: " if place in lines else ""


def _read_file(path: Path) -> tuple[dict[str, Any], Lines]:
    try:
        # `/data/faces #1` is not /data/faces, another warehouse.
        data, lines = read_values(text_of(path.read_bytes()), whole=PLACES)
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read ({error.strerror}).", hint="give --config a readable file."
        ) from None
    except ValueError as error:
        raise SettingsError(f"{path}: {error}.") from None
    if data is None:
        return {}, {}
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: expected 'key: value' lines at the top level.")
    return data, lines


def _apply_override(data: dict[str, Any], override: str) -> str:
    """Put one ``key=value`` into ``data``; returns the key."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise SettingsError(f"--set {override.split('=', maxsplit=1)[0]}: expected key=value.")
    if key.split(".")[0] in SECRETS:
        raise SettingsError(
            f"--set {key}: secrets are not taken from the command line (process lists show it).",
            hint=f"set {ENV_PREFIX}{key.upper()} in the environment.",
        )
    target = data
    *parents, leaf = key.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise SettingsError(f"--set {key}: '{parent}' is not a section.")
    try:
        # On a command line nothing is a comment.
        target[leaf], _ = read_values(text, comments=())
    except ValueError as error:
        raise SettingsError(f"--set {key}: {error}.", hint="put a text in quotes.") from None
    return key


def _unknown_keys(data: Mapping[str, Any], model: type[BaseModel], prefix: str) -> Iterator[str]:
    for key, value in data.items():
        if key not in model.model_fields:
            yield f"{prefix}{key}"
            continue
        section = model.model_fields[key].annotation
        if isinstance(value, dict) and isinstance(section, type) and issubclass(section, BaseModel):
            yield from _unknown_keys(value, section, f"{prefix}{key}.")


def all_keys(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Every dotted key that a configuration may hold, secrets not included."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            keys += all_keys(section, f"{prefix}{name}.")
        elif name not in SECRETS:
            keys.append(f"{prefix}{name}")
    return keys


def _hint(key: str) -> str:
    known = all_keys() + sorted({k.split(".")[0] for k in all_keys()})
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    leaf = [k for k in known if k.split(".")[-1] == key.rsplit(".", maxsplit=1)[-1]]
    found = close or leaf
    return f" Hint: '{found[0]}'?" if found else " See docs/settings.md for all keys."


def _described(error: ValidationError) -> tuple[str, str]:
    """The key of the first fault, and what is wrong with it."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "tuple_type":
        first["msg"] = "must be a list, such as [a, b]"
    return ".".join(str(p) for p in first["loc"]) or "settings", str(first["msg"]).removeprefix("Value error, ")


__all__ = ["ENV_PREFIX", "SECRETS", "Settings", "all_keys", "load_settings"]


def reference() -> str:
    """The settings reference (docs/settings.md) as Markdown, made from the model."""
    lines = [
        "# Settings",
        "",
        "Made from `jobs/settings.py` by `make docs`; `--set key=value` overrides any of them.",
        "",
    ]
    lines += ["| key | default | meaning |", "| --- | --- | --- |", *_reference_rows(Settings, "")]
    lines += ["", "Secrets come from the environment only: " + ", ".join(f"`{ENV_PREFIX}{s.upper()}`" for s in SECRETS)]
    return "\n".join(lines) + ".\n"


def _reference_rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from _reference_rows(section, f"{prefix}{name}.")
        elif name not in SECRETS:
            default = json.dumps(field.default, default=list)
            text = (field.description or "").replace("|", "\\|")
            yield f"| `{prefix}{name}` | `{default}` | {text} |"
