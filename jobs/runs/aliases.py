"""Which collection an alias points at, on record.

Milvus takes a switch from whoever sends it, also from a run that has slept through the loss of its lease. So a switch
is written down under the lease before it is made, and the lease is looked at again after it: who has lost it puts the
alias back. What is stopped even before that, the next run puts right: the record is fenced, where the alias is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from jobs.errors import DependencyUnavailable, FaceReindexError, LeaseLost
from jobs.index.collections import collection_name
from jobs.index.protocol import VectorIndex
from jobs.runs.record import Run
from jobs.runs.results import AliasSet, AliasSwitch, Promoted
from jobs.schemas import RUN_STEPS
from jobs.tables.store import Warehouse


@dataclass(frozen=True)
class Recorded:
    """The last word on an alias: a collection, or ``open``: a switch to ``to`` from ``collection``."""

    collection: str | None
    to: str | None
    token: int

    @property
    def open(self) -> bool:
        """Whether a switch was begun of whose end nothing is known."""
        return self.to is not None


def recorded(warehouse: Warehouse, alias: str) -> Recorded | None:
    """The last word on an alias, by the token under which it was written; None: no release that writes it has."""
    switches, newest = f"{AliasSwitch.condition()} OR {AliasSet.condition()}", "fencing_token DESC, ended_at DESC"
    for row in warehouse.rows(RUN_STEPS, "result, fencing_token", where=switches, order_by=newest):
        said = AliasSet.of_record(json.loads(row["result"]))
        if said.alias == alias:
            return Recorded(said.collection, said.to, row["fencing_token"])
    return None


@contextmanager
def switching(run: Run, index: VectorIndex, collection: str) -> Iterator[None]:
    """Around the switch of the alias to ``collection``.

    Raises:
        LeaseLost: a later run holds the lease; the alias points again where it did, or where that run wants it.
    """
    before = index.alias_target(run.settings.milvus.alias)
    run.record(AliasSwitch(alias=run.settings.milvus.alias, collection=before, to=collection))
    run.lease.check()
    try:
        yield
        run.lease.check()
    except LeaseLost:
        _put_back(run, index, collection, before)
        raise
    except FaceReindexError:
        # Switched back, if it was switched at all. Where Milvus is out of reach, the next run looks.
        with suppress(DependencyUnavailable):
            _points_at(run, index.alias_target(run.settings.milvus.alias))
        raise
    _points_at(run, collection)


def settle_alias(run: Run, index: VectorIndex) -> None:
    """Put the alias right where a run that had lost its lease has switched it; where one was stopped in the middle of
    a switch, write down how that ended, so that it cannot go on."""
    alias = run.settings.milvus.alias
    last = recorded(run.warehouse, alias)
    if last is None:
        return
    target = index.alias_target(alias)
    if last.open and target in (last.collection, last.to):
        _points_at(run, target)
    elif target != last.collection and last.collection is not None and index.exists(last.collection):
        _point(run, index, last.collection)
        _points_at(run, last.collection)
        run.job.console.note(
            f"alias {alias} pointed at {target}, which no run that held the lease has promoted; it points at "
            f"{last.collection} again."
        )


def has_switched(run: Run, index: VectorIndex) -> bool:
    """Whether readers see this run's own collection, by an earlier start of it.

    By the index, and by the last word on the alias: the step `promote` is recorded only when the watch is over, and a
    run may be killed before that.
    """
    alias = run.settings.milvus.alias
    promoted = run.result(Promoted)
    own = promoted.current if promoted is not None else collection_name(alias, run.run_id)
    if index.alias_target(alias) == own:
        return True
    # The record is only read for a run that has a collection: most have none.
    last = recorded(run.warehouse, alias) if index.exists(own) else None
    return last is not None and last.collection == own


def _put_back(run: Run, index: VectorIndex, collection: str, before: str | None) -> None:
    alias = run.settings.milvus.alias
    last = recorded(run.warehouse, alias)
    ours = last is None or last.token <= run.lease.token
    wanted = before if ours else last.collection if last is not None and not last.open else None
    # A later run that is at a switch of its own sees to it.
    if index.alias_target(alias) != collection or wanted == collection:
        return
    if wanted is not None and index.exists(wanted):
        _point(run, index, wanted)
    elif ours and before is None:
        index.drop_alias(alias)


def _point(run: Run, index: VectorIndex, collection: str) -> None:
    milvus = run.settings.milvus
    index.load(collection, replicas=milvus.replicas, timeout=milvus.index_timeout_s)
    index.switch_alias(milvus.alias, collection)


def _points_at(run: Run, collection: str | None) -> None:
    run.record(AliasSet(alias=run.settings.milvus.alias, collection=collection))
