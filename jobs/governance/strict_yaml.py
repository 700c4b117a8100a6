"""YAML as a person means it: each scalar is the text that stands there, each name stands once."""

from __future__ import annotations

from typing import Any

import yaml

from jobs.texts import text_of


class _Refused(yaml.MarkedYAMLError):  # type: ignore[misc]  # PyYAML has no types
    """What YAML has and a file of ours must not; its `problem` holds no word of the file."""


class _Strict(yaml.BaseLoader):  # type: ignore[misc]  # PyYAML has no types
    """Texts, lists and mappings only: 007 is no number, NO (Norway) no truth. No name twice, no aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise _Refused(problem="aliases are not read", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise _Refused(problem="a name stands twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return dict(super().construct_mapping(node, deep))


def read_yaml(data: bytes) -> Any:
    """What the file says. Raises ValueError, whatever is wrong with it: with the line, where there is one."""
    return read_yaml_with_lines(data)[0]


def read_yaml_with_lines(data: bytes) -> tuple[Any, dict[str, int]]:
    """What the file says, and the lines in which the names at its top stand. Raises ValueError as `read_yaml`."""
    text = text_of(data)
    try:
        loader = _Strict(text)
        try:
            node = loader.get_single_node()
            said = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        what = str(error.problem) if isinstance(error, _Refused) else type(error).__name__
        raise ValueError(what + (f" in line {mark.line + 1}" if mark else "")) from None
    at_top = node.value if isinstance(node, yaml.MappingNode) else []
    return said, {str(key.value): key.start_mark.line + 1 for key, _ in at_top}
