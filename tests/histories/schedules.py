"""Which histories are played: systematic ones first, then random ones with a lean to what breaks promises."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from tests.histories.cells import RULES, SHAPES
from tests.histories.machine import ANEW, GIVEN_AGAIN, KEPT, History

#: Rules after which others are most telling.
GRAVE = (
    "withdraw", "hold", "hold other", "forget", "forget other", "forget both", "forget picture", "garble", "deny",
    "export withdrawal", "swap", "withdraw other", "withdraw both", "withdraw incompletely", "change other",
    "mistake",
)  # fmt: skip
#: The schedule of the quick profile, …
QUICK = ("reindex", "later", "embed~append embeddings>erase", "sync", "rotate", "reindex")
#: … and what some of its cells go through: histories that once broke a guarantee.
ONCE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("alone", ("withdraw",)),
    ("boxed", ("withdraw", "forget both")),
    ("boxed", ("renew", "forget")),
    ("alone", ("deny", "renew", "grant", "deny")),
    ("alone", ("hold", "renew", "release", "hold")),
    ("alone", ("garble", "renew", "garble")),
    ("alone", ("change",)),
    ("alone", ("", "foreign")),
    ("alone", ("other encoding", "forget")),
    ("boxed", ("other encoding", "forget both")),
    ("alone", ("", "forget", "", "", "other encoding")),
    ("boxed", ("", "forget both", "", "", "other encoding")),
    ("hidden", ("", "withdraw")),
    ("hidden", ("", "forget")),
    ("boxed", ("swap", "withdraw")),
    ("boxed", ("hold", "forget other")),
    ("spread", ("hold other", "withdraw", "renew")),
    ("alone", ("hold", "forget", "come back", "forget")),
    ("alone", ("ahead", "forget", "", "", "again")),
    ("alone", ("forget", "", "", "", "export withdrawal")),
    ("alone", ("shorten validity", "first")),
    # Whose picture it was is in it no more.
    ("alone", ("change other", "withdraw other")),
    ("boxed", ("change other", "withdraw other")),
    ("boxed", ("deny", "withdraw other")),
    ("alone", ("mistake", "forget")),
    ("hidden", ("change other", "forget")),
    # What has ended has, whatever its form.
    ("alone", ("", "withdraw incompletely")),
)
#: Rules that send pictures.
SENDING = (
    "change", "change and again", "change other", "mistake", "restore", "resend", "pictures", "copy", "copy of other",
    "other encoding", "come back", "come back behind", "foreign", "error page",
)  # fmt: skip
Cells = tuple[tuple[str, str, str, tuple[str, ...]], ...]


def cells_for(sequences: Sequence[tuple[str, ...]], rng: random.Random, *, shapes: Sequence[str] = ()) -> Cells:
    """A cell for each sequence, its shape by turns; one in ten belongs to the batch that is revoked."""
    names = list(shapes or SHAPES)
    rng.shuffle(names)
    made = [
        (
            f"c{number:04d}",
            names[number % len(names)],
            batch := "part" if number % 10 == 7 else "main",
            sparing(rules, batch),
        )
        for number, rules in enumerate(sequences)
    ]
    return ((KEPT, "boxed", "main", ()), *made)


def sparing(rules: tuple[str, ...], batch: str) -> tuple[str, ...]:
    """Rules that need an ingest of another batch than the main one only before each fourth job: it is a job more."""
    return tuple(
        rule if number % 4 == 1 or (rule != "foreign" and (batch == "main" or rule not in SENDING)) else ""
        for number, rule in enumerate(rules)
    )


def pairs_around(steps: int, rng: random.Random, count: int) -> list[tuple[str, ...]]:
    """``count`` sequences of two rules around each job of a schedule, from a fresh start; every pair by turns."""
    pairs = list(itertools.product(RULES, RULES))
    rng.shuffle(pairs)
    places = itertools.cycle(range(steps - 1))
    return [_at(next(places), pair) for pair in itertools.islice(itertools.cycle(pairs), count)]


def triples_around(steps: int, rng: random.Random, count: int) -> list[tuple[str, ...]]:
    """``count`` of the sequences of three rules of which one is grave."""
    triples = [t for t in itertools.product(RULES, repeat=3) if set(t) & set(GRAVE)]
    chosen = [rng.choice(triples) for _ in range(count)]
    return [_at(rng.randrange(max(1, steps - 2)), triple) for triple in chosen]


def walks(steps: int, rng: random.Random, count: int) -> list[tuple[str, ...]]:
    """``count`` random sequences, most of them with pauses, more grave than not."""
    found = []
    for _ in range(count):
        idle = rng.choice((0.2, 0.5, 0.8))
        found.append(tuple("" if rng.random() < idle else rng.choice(RULES + GRAVE) for _ in range(steps)))
    return found


def _at(place: int, rules: tuple[str, ...]) -> tuple[str, ...]:
    return ("",) * place + rules


def quick(seed: int, size: int) -> History:
    """The quick profile: `QUICK` with ``size`` cells, those of `ONCE` among them."""
    made = history_of(QUICK, seed, size - len(ONCE))
    # Nothing before the rotation: it would be an ingest more, and all records are imported after it anyhow.
    quiet = QUICK.index("rotate") - 1
    made_cells = tuple(
        (n, s, b, (*r[:quiet], "", *r[quiet + 1 :]) if len(r) > quiet else r) for n, s, b, r in made.cells
    )
    known = tuple((f"k{number:04d}", shape, "main", rules) for number, (shape, rules) in enumerate(ONCE))
    return History(made.schedule, (*made_cells, *known))


def history_of(schedule: Sequence[str], seed: int, size: int) -> History:
    """A schedule with ``size`` cells: half of them pairs, the others triples and walks."""
    rng = random.Random(seed)
    steps = len(schedule)
    sequences = pairs_around(steps, rng, size // 2) + triples_around(steps, rng, size // 4)
    sequences += walks(steps, rng, size - len(sequences))
    return History(tuple(schedule), cells_for(sequences, rng))


#: The words of systematic schedules. Those in capitals stand for many: a kill, a zombie, a meeting, at some point; a
#: command that is cut off and given again; a run id that is used again; another index; what happens to a batch,
#: or to a jurisdiction; a table that is lost.
WORDS = (
    "embed", "sync", "expire", "erase", "reindex", "night", "rollback", "later", "rotate", "KILL", "resume", "ZOMBIE",
    "MEET", "AGAIN", "SAME", "ELSEWHERE", "BATCH", "LAW", "restore images", "restore embeddings", "restore index.db",
    "lose", "LOSE",
)  # fmt: skip
BATCH_WORDS = ("revoke", "erase batch", "assess batch", "assess batch ahead", "give batch")
LAW_WORDS = ("outlaw", "allow")
LOST = ("images", "basis_links", "processing_basis")
KILLABLE = ("embed", "sync", "expire", "erase", "reindex")
OTHERS = ("erase", "sync", "expire", "reindex", "embed")
POINTS = (
    "append embeddings", "append image_status", "delete embeddings", "delete image_status", "append erasure_items",
    "append tombstones", "append erasure_steps", "delete erasure_items", "delete images", "delete processing_basis",
    "purge", "vacuum", "write text", "index create", "index insert", "index delete", "index drop",
    "index switch_alias",
)  # fmt: skip
#: Where a command that is given again is cut off.
CUTS = {
    "ingest": ("append basis_quarantine", "append processing_basis", "append basis_links", "delete images",
               "append images"),
    "ask": ("append erasure_requests", "append tombstones", "append erasure_items", "append audit_events"),
}  # fmt: skip
_LENGTH = 12


def schedules(seed: int) -> Iterator[tuple[str, ...]]:
    """`QUICK`, then every ordered pair of `WORDS`. (What comes after them is random: stateful.py.)

    Each begins with a night, for there is nothing to withdraw from before, and a copy put aside.
    """
    rng = random.Random(seed)
    yield QUICK
    line = every_pair(WORDS, rng)
    for at in range(0, len(line) - 1, _LENGTH):
        yield _begun(line[at : at + _LENGTH + 1], rng)


def every_pair(words: Sequence[str], rng: random.Random) -> list[str]:
    """A line in which each word is followed by each, once: an Eulerian circuit of the complete graph."""
    left = {word: rng.sample(list(words), len(words)) for word in words}
    stack, circuit = [rng.choice(list(words))], []
    while stack:
        if left[stack[-1]]:
            stack.append(left[stack[-1]].pop())
        else:
            circuit.append(stack.pop())
    return circuit[::-1]


def given_again(rng: random.Random) -> str:
    """A command that is cut off, most often with a job before it is given again."""
    name = rng.choice(GIVEN_AGAIN)
    other = rng.choice(("", *ANEW))
    return f"{name}!{rng.choice(CUTS[name])}" + (f">{other}" if other else "")


def lost_table(rng: random.Random) -> str:
    """A table that is lost while a job runs."""
    return f"lose {rng.choice(LOST)}>{rng.choice(ANEW)}"


def _begun(line: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    words = ["reindex", "back up", *(_resolved(word, rng) for word in line)]
    for chosen in (BATCH_WORDS[:2], LAW_WORDS[:1]):
        if rng.random() < 0.5:
            words.insert(rng.randrange(3, len(words)), rng.choice(chosen))
    return tuple(words)


def _resolved(word: str, rng: random.Random) -> str:
    if word == "AGAIN":
        return given_again(rng)
    if word in ("SAME", "ELSEWHERE"):
        return f"{word.lower()} {rng.choice(ANEW)}"
    if word == "BATCH":
        return rng.choice(BATCH_WORDS)
    if word == "LOSE":
        return lost_table(rng)
    if word == "LAW":
        return rng.choice(LAW_WORDS)
    if word not in ("KILL", "ZOMBIE", "MEET"):
        return word
    job = rng.choice(KILLABLE)
    point = rng.choice(POINTS) if rng.random() < 0.5 else str(rng.randrange(30))
    if word == "KILL":
        return f"{job}!{point}"
    sign = "~" if word == "ZOMBIE" else "^"
    other = rng.choice([o for o in OTHERS if word == "ZOMBIE" or o in ("erase", "sync")])
    return f"{job}{sign}{point}>{other}"
