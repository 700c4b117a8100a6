"""What each kind of step records, in the order of a night, then what may come between two nights. See `StepResult`.

Whoever reads a step of any run reads it by these: no reader has a key of the JSON in a text of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pyspark.sql import functions as F

from jobs.index.promotion import Watched
from jobs.index.staged_files import StagedFile
from jobs.index.verification import Proof
from jobs.runs.machines import Machines
from jobs.runs.step_result import FLAT, OMITTED, StepResult

if TYPE_CHECKING:
    from pyspark.sql import Column

# --- From images to faces --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Screened(StepResult):
    """What the gate decided of all images, and the model that the run embeds with. None: not on record."""

    STEP = "gate"

    images: int | None = None
    accepted: int | None = None
    refused: int | None = None
    newly_refused: int | None = None
    reasons: dict[str, int] = field(default_factory=dict)
    fingerprint: str | None = None
    weights: str | None = None
    machines: Machines = field(default_factory=Machines, metadata=FLAT)


@dataclass(frozen=True, kw_only=True)
class RemovedFromTable(StepResult):
    """Faces that were deleted from the table, for nothing permits them any more."""

    STEP = "remove-unpermitted"
    FORMERLY = ("withdraw",)

    faces: int


@dataclass(frozen=True, kw_only=True)
class Planned(StepResult):
    """The chunks (first part, last part, images), which a run that is resumed must cut alike; images in all of them."""

    STEP = "plan"

    chunks: tuple[tuple[int, ...], ...]
    images: int | None = None


@dataclass(frozen=True, kw_only=True)
class Device:
    """What the networks ran on, how long they computed, and how long the workers of the chunk were at it."""

    names: tuple[str, ...] = ()
    network_s: float = 0.0
    elapsed_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Embedded(StepResult):
    """A chunk: images by what became of them, faces, and what they were embedded on."""

    STEP = "embed/"

    images: int
    faces: int
    statuses: dict[str, int] = field(default_factory=dict)
    device: Device | None = None
    machines: Machines = field(default_factory=Machines, metadata=FLAT)


# --- From faces to a collection --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class IdCollisionsResolved(StepResult):
    """Faces that got another id, for theirs stood twice."""

    STEP = "resolve-id-collisions"
    FORMERLY = ("resalt",)

    faces: int


@dataclass(frozen=True, kw_only=True)
class Staged(StepResult):
    """The files that are to be imported, and where. ``apart``: outside of the warehouse, as the settings say."""

    STEP = "stage"

    path: str
    apart: bool | None = None
    rows: int | None = None
    buckets: int
    files: tuple[StagedFile, ...]
    machines: Machines = field(default_factory=Machines, metadata=FLAT)


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """What did the work in Milvus, for the rates of a plan."""

    by_import: bool = False
    data_nodes: int = 0


@dataclass(frozen=True, kw_only=True)
class Imported(StepResult):
    """The collection that holds all that was staged."""

    STEP = "import"

    collection: str
    rows: int | None = None
    nodes: Nodes = field(default_factory=Nodes, metadata=FLAT)


@dataclass(frozen=True, kw_only=True)
class FileImported(StepResult):
    """The last that is known of a staged file's import: its job, and the job's state (`import_records`).

    ``failed``: how often one was over without having loaded it, into this collection. ``began``, ``ended``: when the
    job was started, and seen to be over, in seconds since 1970; it is on record later than that, with others.
    """

    STEP = "import/"

    job_id: str
    state: str
    collection: str | None = None
    failed: int | None = field(default=None, metadata=OMITTED)
    began: float | None = field(default=None, metadata=OMITTED)
    ended: float | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class Indexed(StepResult):
    """The index that was built over the collection."""

    STEP = "index"

    index: str
    rows: int | None = None
    nodes: Nodes = field(default_factory=Nodes, metadata=FLAT)


@dataclass(frozen=True, kw_only=True)
class RemovedFromCollection(StepResult):
    """Faces that were taken out of a loaded collection, for they are permitted no longer."""

    STEP = "remove-unpermitted-loaded"
    FORMERLY = ("withdraw-loaded",)

    faces: int


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """What became of every image, as the proof counts it; and what does not add up."""

    images: int
    statuses: dict[str, int]
    reasons: dict[str, int]
    faces: int
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verified(StepResult):
    """The proof of a collection, passed or not."""

    STEP = "verify"

    collection: str
    proof: Proof = field(metadata=FLAT)
    counts: Reconciled
    machines: Machines = field(default_factory=Machines, metadata=FLAT)

    @property
    def faults(self) -> tuple[str, ...]:
        """Everything that speaks against it."""
        return (*self.proof.faults, *self.counts.faults)

    @property
    def is_proven(self) -> bool:
        """Whether the collection may be promoted."""
        return self.proof.passed and not self.counts.faults


@dataclass(frozen=True, kw_only=True)
class Promoted(StepResult):
    """The switch of the alias: what it points at, what it pointed at before, what was dropped, what the watch saw."""

    STEP = "promote"

    alias: str | None = None
    current: str
    previous: str | None = None
    dropped: tuple[str, ...] = ()
    watched: Watched | None = None


@dataclass(frozen=True, kw_only=True)
class Maintained(StepResult):
    """Tables that were compacted or vacuumed."""

    STEP = "maintain"

    tables: int


# --- Aliases and collections, before and after something is done to them ---------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AliasSet(StepResult):
    """What an alias points at since."""

    STEP = "alias"

    alias: str
    collection: str | None
    to: str | None = None


@dataclass(frozen=True, kw_only=True)
class AliasSwitch(AliasSet):
    """A switch of an alias that is about to be made: from ``collection`` ``to`` another."""

    STEP = "alias-switch"


@dataclass(frozen=True, kw_only=True)
class Filling(StepResult):
    """A collection that single rows come into."""

    STEP = "fill-collection"

    collection: str


@dataclass(frozen=True, kw_only=True)
class Dropping(StepResult):
    """Collections that are about to be dropped, and the ids of the index that they are in."""

    STEP = "drop-collections"

    dropped: tuple[str, ...]
    index: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Dropped(StepResult):
    """Collections that were dropped."""

    STEP = "dropped-collections"

    dropped: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Lost(StepResult):
    """Collections of which an operator says that they are gone."""

    STEP = "lost-collections"

    dropped: tuple[str, ...]


# --- Between two nights ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RemovedFromLive(StepResult):
    """Faces that left the live collection; the empty text: there is none."""

    STEP = "sync-remove"
    FORMERLY = ("sync-withdraw",)

    collection: str
    removed: int


@dataclass(frozen=True, kw_only=True)
class Added(StepResult):
    """Faces that came into the live collection; and those that were too many, and wait for a night."""

    STEP = "sync-add"

    added: int
    left: int


@dataclass(frozen=True, kw_only=True)
class BroughtBack(Added):
    """The same, of the faces of others in pictures of which an erasure took somebody."""

    STEP = "bring-back"


@dataclass(frozen=True, kw_only=True)
class Outlook(StepResult):
    """What comes due: linked ``records`` in force and those of them ``ending`` within 30 days; erasures that are open.

    ``oldest_request``: when the oldest of these was asked for (seconds since 1970); None: none is open.
    """

    STEP = "outlook"

    records: int
    ending: int
    open_requests: int
    oldest_request: float | None = None


@dataclass(frozen=True, kw_only=True)
class FoundDue(StepResult):
    """How much has reached its end."""

    STEP = "expire-due"

    due: int


@dataclass(frozen=True, kw_only=True)
class FoundToErase(StepResult):
    """What a pass is to destroy, by kind."""

    STEP = "erase-find"

    items: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ErasedIndex(StepResult):
    """What a pass did in each collection: rows before, erased, after and left, or that it was dropped, or is lost."""

    STEP = "erase-index"

    collections: dict[str, dict[str, int | bool]] | None = None


@dataclass(frozen=True, kw_only=True)
class ErasedStaging(StepResult):
    """Folders of staged files that were removed."""

    STEP = "erase-staged"

    folders: int


@dataclass(frozen=True, kw_only=True)
class SharedSettled(StepResult):
    """Pictures of several people in which the faces of those who stay were settled."""

    STEP = "erase-shared"

    images: int


@dataclass(frozen=True, kw_only=True)
class ErasedTables(StepResult):
    """What a pass did in each table: rows before, erased, after and left."""

    STEP = "erase-tables"

    tables: dict[str, dict[str, int]] | None = None


@dataclass(frozen=True, kw_only=True)
class Purged(StepResult):
    """Tables were rewritten without their deleted rows; when the former files go, and what stays in other places."""

    STEP = "erase-purge"

    vacuum_hours: float | None = None
    physically_gone_at: str | None = None
    vacuumed: bool = False
    elsewhere: dict[str, float] | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class LedgerPurged(Purged):
    """The same of the ledger, where its former files stay for some time."""

    STEP = "erase-ledger"


@dataclass(frozen=True, kw_only=True)
class LeftWaiting(StepResult):
    """Requests that stay open, and for which a pass could do nothing while no table that was ``read`` has changed.

    By what they wait for: a legal hold, or what is lost. ``requests``: a keyed digest of them; ``read``: the last
    commit of each table that was looked at.
    """

    STEP = "erase-waits"

    suspended: int
    unknown: int
    requests: str
    read: dict[str, str]


# --- Before the first night ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Calibrated(StepResult):
    """What one executor did with photographs of nothing, each part by all its tasks at once; means over ``executors``.

    Amounts are by the second and the executor: ``images`` through decoding and detection, which finds nobody in them;
    ``decoded`` images and ``cut`` crops by the decoding threads alone; ``embedded`` crops in full passes. ``tasks``
    were at once on an executor, and so many decoding ``threads``; ``machines`` are one executor's. ``measured_s``: all
    parts together.
    """

    STEP = "calibrate"

    images: float
    decoded: float
    cut: float
    embedded: float
    dtype: str
    devices: tuple[str, ...]
    weights: str | None = None
    executors: int
    tasks: int
    threads: int
    measured_s: float
    machines: Machines = field(default_factory=Machines, metadata=FLAT)

    @property
    def on_gpus(self) -> bool | None:
        """Whether the networks ran on GPUs, and not on processors; None where some ran on either."""
        kinds = {device.startswith("cuda") for device in self.devices}
        return kinds.pop() if len(kinds) == 1 else None


# --- What earlier releases called them -------------------------------------------------------------------------------


def _kinds(of: type[StepResult] = StepResult) -> Iterator[type[StepResult]]:
    for kind in of.__subclasses__():
        yield kind
        yield from _kinds(kind)


_RENAMED: Final = {former: kind.STEP for kind in _kinds() for former in vars(kind).get("FORMERLY", ())}


def present_name(step: str) -> str:
    """What a step on record is called today."""
    return _RENAMED.get(step, step)


def present_names() -> Column:
    """The same of the column `step`: for who groups rows of `run_steps` by it, or shows it."""
    found = step = F.col("step")
    for former, present in _RENAMED.items():
        found = F.when(step == former, F.lit(present)).otherwise(found)
    return found
