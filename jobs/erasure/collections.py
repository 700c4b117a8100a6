"""Keys out of every collection: deleted, flushed, compacted, and looked for again by key (Guarantee 9)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass

from jobs.errors import NotCompacted, NotProvenError
from jobs.index.protocol import FLUSH_TIMEOUT_S, Keys, VectorIndex

#: The keys that go, a page at a time; each call begins anew.
Pages = Callable[[], Iterator[Keys]]


@dataclass(frozen=True)
class Erased:
    """One collection: rows ``before`` = ``after`` + ``erased``; ``left``: rows of the erased keys, 0.

    ``compacted``: the segments were seen without deleted rows (the database removes the former files later).
    """

    before: int
    erased: int
    after: int
    left: int
    compacted: bool


def erase_keys(
    index: VectorIndex,
    collections: Sequence[str],
    going: Callable[[str], Pages],
    *,
    keep: Collection[str],
    load_timeout_s: float,
    compact_timeout_s: float,
    before_drop: Callable[[Sequence[str]], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, int | bool]]:
    """Take keys out of ``collections``: the live one and all that stand beside it; by collection, in rows.

    ``going`` tells which, when it is asked of a collection that is loaded. ``before_drop`` is told what goes next,
    ``note`` what the operator has to know: rows that are gone from every answer, and still stored.

    One that no alias points at, and that is not in ``keep`` (was live once), is what an unfinished run left: an import
    may still be on its way into it, and a delete that meets an import can be void (milvus #48472). It is dropped, and
    that run builds it anew.

    Raises:
        NotProvenError: a key is left, or more or fewer rows went than there were.
        DependencyUnavailable: the server is out of reach; nothing is said to be erased then.
    """
    report: dict[str, dict[str, int | bool]] = {}
    for name in collections:
        live = bool(index.aliases_of(name))
        if not live and name not in keep:
            before_drop([name])
            index.drop(name)
            report[name] = {"dropped": True}
            continue
        index.load(name, timeout=load_timeout_s)
        erased = _erase(index, name, going(name), compact_timeout_s, note)
        if not live:
            index.release(name)
        if erased.left or erased.before != erased.after + erased.erased:
            raise NotProvenError(
                f"Erasure: collection {name} had {erased.before} rows, {erased.erased} were to go, {erased.after} are "
                f"there and {erased.left} of those to go.",
                hint="run the same command again.",
            )
        report[name] = asdict(erased)
    return report


def _erase(
    index: VectorIndex, name: str, pages: Pages, compact_timeout_s: float, note: Callable[[str], None]
) -> Erased:
    before = index.count(name)
    there = sum(index.count_ids(name, page) for page in pages())
    if there:
        for page in pages():
            index.delete(name, page)
    # Once, and not once a page: Milvus permits a flush in ten seconds. Also where nothing goes: what an add that was
    # killed has left unflushed stands in no segment, and its rows would make up for deleted ones that do.
    index.flush(name, timeout=FLUSH_TIMEOUT_S)
    left = sum(index.count_ids(name, page) for page in pages()) if there else 0
    # Also where nothing was there: an earlier pass may have been stopped before this.
    try:
        compacted = index.compact(name, timeout=compact_timeout_s)
    except NotCompacted as error:
        # No reason to leave pictures and tables as they are: the receipt says so, and the next pass compacts again.
        compacted = False
        note(str(error))
    return Erased(before, there, index.count(name), left, compacted)
