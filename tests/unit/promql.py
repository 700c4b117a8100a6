"""PromQL, as far as conf/ speaks it: parsed and typed, strictly; what is not known here is refused.

It cannot see what only Prometheus does: which series two sides of an operator match, what labels are left behind one,
where Go's regular expressions differ from Python's, and what an expression evaluates to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["scalar", "vector", "range", "string"]

_DURATION: Final = r"(?:\d+(?:ms|[smhdwy]))+"
_TOKEN: Final = re.compile(
    rf"""\s*(?:
    (?P<duration>{_DURATION}(?!\w))
  | (?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?(?!\w))
  | (?P<name>[a-zA-Z_][\w:]*)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
  | (?P<sign>=~|!~|==|!=|>=|<=|[-+*/%^(){{}}\[\],:<>=])
    )""",
    re.VERBOSE,
)
# From the weakest: what stands in a later line binds more.
_LEVELS: Final = (("or",), ("and", "unless"), ("==", "!=", ">", "<", ">=", "<="), ("+", "-"), ("*", "/", "%"), ("^",))
_SETS: Final = ("or", "and", "unless")
_COMPARES: Final = _LEVELS[2]
_AGGREGATES: Final = {"sum", "avg", "min", "max", "count", "topk", "bottomk"}
_OF_RANGE: Final = ("rate", "increase", "delta", "avg_over_time", "min_over_time", "max_over_time", "last_over_time")
_FUNCTIONS: Final[dict[str, tuple[tuple[Kind, ...], Kind]]] = {
    "time": ((), "scalar"),
    "vector": (("scalar",), "vector"),
    "absent": (("vector",), "vector"),
    "clamp_min": (("vector", "scalar"), "vector"),
    "clamp_max": (("vector", "scalar"), "vector"),
    **dict.fromkeys(_OF_RANGE, (("range",), "vector")),
}


class Malformed(ValueError):
    """An expression that this parser does not take."""


@dataclass
class Parsed:
    """The type of an expression, the labels that it asks each metric for, and those that it groups or matches by."""

    kind: Kind = "scalar"
    metrics: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)


def parse(text: str) -> Parsed:
    """Read a whole expression.

    Raises:
        Malformed: it is none, or is of a type that Prometheus cannot show.
    """
    parser = _Parser(text)
    found = Parsed(parser.expression(0), parser.metrics, parser.labels)
    if parser.tokens[parser.at :]:
        raise Malformed(f"{text!r}: {parser.tokens[parser.at][1]!r} is one too many")
    if found.kind not in ("scalar", "vector"):
        raise Malformed(f"{text!r} is a {found.kind}")
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        self.metrics: list[tuple[str, frozenset[str]]] = []
        self.labels: set[str] = set()
        self.at = 0
        place, text = 0, text.rstrip()
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                raise Malformed(f"{text[place:]!r} is nothing that PromQL knows")
            self.tokens.append((str(found.lastgroup), found[str(found.lastgroup)]))
            place = found.end()

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str, kind: str = "") -> str:
        """The next token, which has to be one of these, or of this kind."""
        if self.at == len(self.tokens):
            raise Malformed("it breaks off")
        of, word = self.tokens[self.at]
        if (wanted and word not in wanted) or (kind and of != kind):
            raise Malformed(f"{word!r} stands where {' or '.join(wanted) or kind} should")
        self.at += 1
        return word

    def has(self, word: str) -> bool:
        if self.peek() == word:
            self.at += 1
            return True
        return False

    def expression(self, level: int) -> Kind:
        if level == len(_LEVELS):
            return self.unary()
        left = self.expression(level + 1)
        while (operator := self.peek()) in _LEVELS[level]:
            self.at += 1
            compares_numbers = self.has("bool")
            if compares_numbers and operator not in _COMPARES:
                raise Malformed(f"bool behind {operator}")
            matched = self.matching(operator)
            # Powers bind to the right; all others to the left.
            right = self.expression(level if operator == "^" else level + 1)
            kinds = {left, right}
            if not kinds <= {"scalar", "vector"} or ((operator in _SETS or matched) and kinds != {"vector"}):
                raise Malformed(f"a {left} {operator} a {right}")
            if operator in _COMPARES and kinds == {"scalar"} and not compares_numbers:
                raise Malformed("two numbers are compared with bool only")
            left = "vector" if "vector" in kinds else "scalar"
        return left

    def matching(self, operator: str) -> bool:
        if self.peek() not in ("on", "ignoring"):
            return False
        self.at += 1
        self.names()
        if self.peek() in ("group_left", "group_right"):
            if operator in _SETS:
                raise Malformed(f"{operator} with {self.peek()}")
            self.at += 1
            if self.peek() == "(":
                self.names()
        return True

    def names(self) -> None:
        self.take("(")
        while not self.has(")"):
            self.labels.add(self.take(kind="name"))
            if self.peek() != ")":
                self.take(",")

    def unary(self) -> Kind:
        if self.peek() in ("-", "+"):
            self.at += 1
            kind = self.unary()
            if kind not in ("scalar", "vector"):
                raise Malformed(f"the negative of a {kind}")
            return kind
        return self.ranged(self.atom())

    def atom(self) -> Kind:
        if self.has("("):
            kind = self.expression(0)
            self.take(")")
            return kind
        if self.at == len(self.tokens):
            raise Malformed("it breaks off")
        of, word = self.tokens[self.at]
        self.at += 1
        if of in ("number", "string"):
            return "scalar" if of == "number" else "string"
        if of != "name" or word in _SETS:
            raise Malformed(f"{word!r} begins nothing")
        if word in _AGGREGATES:
            return self.aggregate(word)
        return self.call(word) if self.peek() == "(" else self.selector(word)

    def aggregate(self, name: str) -> Kind:
        def grouping() -> bool:
            if self.peek() not in ("by", "without"):
                return False
            self.at += 1
            self.names()
            return True

        before = grouping()
        self.arguments(name, ("scalar", "vector") if name in ("topk", "bottomk") else ("vector",))
        if not before:
            grouping()
        return "vector"

    def call(self, name: str) -> Kind:
        if name not in _FUNCTIONS:
            raise Malformed(f"{name} is no function that is known here")
        takes, kind = _FUNCTIONS[name]
        self.arguments(name, takes)
        return kind

    def arguments(self, name: str, takes: tuple[Kind, ...]) -> None:
        self.take("(")
        given: list[Kind] = []
        while not self.has(")"):
            given.append(self.expression(0))
            if self.peek() != ")":
                self.take(",")
        if tuple(given) != takes:
            raise Malformed(f"{name} of {given}")

    def selector(self, name: str) -> Kind:
        asked = set()
        if self.has("{"):
            while not self.has("}"):
                asked.add(self.take(kind="name"))
                operator, value = self.take("=", "!=", "=~", "!~"), self.take(kind="string")
                if "~" in operator:
                    re.compile(value[1:-1])
                if self.peek() != "}":
                    self.take(",")
        self.metrics.append((name, frozenset(asked)))
        return "vector"

    def ranged(self, kind: Kind) -> Kind:
        if self.has("["):
            self.take(kind="duration")
            if self.has(":") and self.peek() != "]":
                self.take(kind="duration")
            self.take("]")
            if kind != "vector":
                raise Malformed(f"a range of a {kind}")
            kind = "range"
        if self.has("offset"):
            self.has("-")
            self.take(kind="duration")
            if kind not in ("vector", "range"):
                raise Malformed(f"a {kind} at another time")
        return kind
