"""YAML as a person means it: each name stands once, and no value is taken for another one than what stands there.

Rules, terms and batch files are texts alone (`read_yaml`): 007 is no number, NO (Norway) no truth. Settings also hold
numbers and truths (`read_values`): what one version of YAML reads as another number than the next is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any, Final

import yaml

from jobs.texts import text_of

#: Where each value stands: its names and numbers with a dot between them, and the line.
Lines = dict[str, int]

#: What YAML calls nothing.
NULLS: Final = ("", "~", "null", "Null", "NULL")
_TRUTHS: Final = {
    word: truth
    for truth, words in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for one in words
    for word in (one, one.capitalize(), one.upper())
}
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9]\d*|[1-9]\d{0,2}(?:_\d{3})+|0x[0-9a-fA-F]+)", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)", re.ASCII)
# Octal, in base 60 (1:30 is 90), binary, and with lines that part no thousands.
_OTHER_NUMBER: Final = re.compile(
    r"[-+]?(?:0[\d_]+|0[oObB][\d_]*|\d[\d_]*(?::[0-5]?\d)+(?:\.[\d_]*)?|\d+_[\d_]*)|\.(?:nan|NaN|NAN)", re.ASCII
)
# How PyYAML begins its sentence, and what people have done.
_HABITS: Final = (
    ("found character '\\t'", "there is a tab where only blanks may stand"),
    ("found character ", "a value that begins with @, % or ` needs quotes about it"),
    ("expected escape sequence", "a backslash in double quotes begins something else; use single quotes"),
    ("found unknown escape", "a backslash in double quotes begins something else; use single quotes"),
    ("mapping values are not allowed", "a colon with a blank behind it inside a value; put quotes about the value"),
    ("but found another document", "there is more than one document (---)"),
)
_IN_WORDS: Final = re.compile(r"[ \t]+#[ \t]+[^\W\d_]")
_COMMENT: Final = re.compile(r"[ \t]+#[ \t]*([^\r\n\x85\u2028\u2029]*)")


class _Refused(yaml.MarkedYAMLError):  # type: ignore[misc]  # PyYAML has no types
    """What is refused, and where; never with the text that stands there, which may be a secret."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _Composer(yaml.BaseLoader):  # type: ignore[misc]
    """Texts, lists and mappings as nodes. No aliases, no anchors, no tags: `&Sons Ltd` would be the text `Ltd`."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _Refused("aliases are not read: a value that begins with * needs quotes about it", event.start_mark)
        if event.anchor is not None:
            raise _Refused("anchors are not read: a value that begins with & needs quotes about it", event.start_mark)
        if event.tag is not None:
            raise _Refused("tags (!) are not read: a value that begins with ! needs quotes about it", event.start_mark)
        return super().compose_node(parent, index)


class _Reader:
    """Makes values of nodes; notes where each stands."""

    def __init__(self, scalar: Callable[[yaml.ScalarNode, str], Any]) -> None:
        self.scalar = scalar
        self.lines: Lines = {}

    def value(self, node: yaml.Node, place: str = "") -> Any:
        self.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, place)
        inside = f"{place}." if place else ""
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{inside}{number}") for number, item in enumerate(node.value)]
        found: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Refused("a name must be one text", key.start_mark)
            if key.value in found:
                raise _Refused(f"a name stands twice (first in line {self.lines[inside + key.value]})", key.start_mark)
            found[key.value] = self.value(item, inside + key.value)
            self.lines[inside + key.value] = key.start_mark.line + 1
        return found


def read_yaml(data: bytes, comments: Collection[str] | None = None) -> Any:
    """What the file says, each scalar as the text that stands there.

    ``comments``: behind a value no other comment than these is read; it may be the rest of the value, as in
    `crm #2025`. (None: every one is a comment.)

    Raises ValueError, whatever is wrong with it: with the line, where there is one.
    """
    return read_yaml_with_lines(data, comments)[0]


def read_yaml_with_lines(data: bytes, comments: Collection[str] | None = None) -> tuple[Any, Lines]:
    """The same, with the line of each value. Raises ValueError as `read_yaml`."""
    text = text_of(data)

    def as_text(node: yaml.ScalarNode, _place: str) -> str:
        _no_comment(node, text, comments)
        return str(node.value)

    reader = _Reader(as_text)
    return _read(text, reader), reader.lines


def read_values(text: str, comments: Collection[str] | None = None, whole: Collection[str] = ()) -> tuple[Any, Lines]:
    """The same of texts, numbers, truths and nothing, as YAML 1.1 has them, with the line of each.

    ``whole``: keys behind whose values, or the items of whose lists, only a comment in words stands (`# where it is`);
    `#1` may be the rest of a name.

    Raises ValueError as above, also for a number that is another one in YAML 1.2.
    """

    def as_value(node: yaml.ScalarNode, place: str) -> Any:
        named = place in whole or place.rpartition(".")[0] in whole
        rest = named and not _IN_WORDS.match(text, node.end_mark.index)
        _no_comment(node, text, () if rest else comments)
        return node.value if node.style else _plain(node)

    reader = _Reader(as_value)
    return _read(text, reader), reader.lines


def _plain(node: yaml.ScalarNode) -> Any:
    """What a scalar without quotes stands for."""
    word = str(node.value)
    if word in NULLS:
        return None
    if word in _TRUTHS:
        return _TRUTHS[word]
    if _INTEGER.fullmatch(word):
        return int(word, 16 if "0x" in word else 10)
    if _FLOAT.fullmatch(word):
        return float(word.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf"))
    if _OTHER_NUMBER.fullmatch(word):
        raise _Refused(
            "a number that is octal, binary, of base 60, none, or has lines in it; write it in plain digits, or put "
            "quotes about a text",
            node.start_mark,
        )
    return word


def _no_comment(node: yaml.ScalarNode, text: str, comments: Collection[str] | None) -> None:
    """Refuse what stands behind a value without quotes as a comment, and may be the rest of it."""
    if comments is None or node.style or not node.value:
        return
    behind = _COMMENT.match(text, node.end_mark.index)
    if behind and behind[1].rstrip() not in comments:
        raise _Refused(
            "` #` behind a value begins a comment: put quotes about the value if # belongs to it; else write the "
            "comment on a line of its own",
            node.end_mark,
        )


def _read(text: str, reader: _Reader) -> Any:
    try:
        node = _Composer(text).get_single_node()
        return None if node is None else reader.value(node)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        what = str(error.problem) if isinstance(error, _Refused) else f"is not valid YAML{_likely(error)}"
        raise ValueError(f"line {mark.line + 1}: {what}" if mark else what) from None


def _likely(error: Exception) -> str:
    """What people do most, to go on with, by how PyYAML begins its sentence; never with the text that stands there."""
    problem = str(getattr(error, "problem", None) or "")
    return next((f": {said}" for start, said in _HABITS if problem.startswith(start)), "")
