"""YAML as a person means it: each scalar is the text that stands there, each name stands once."""

from __future__ import annotations

from typing import Any

import yaml

from jobs.texts import text_of


class _Strict(yaml.BaseLoader):  # type: ignore[misc]  # PyYAML has no types
    """Texts, lists and mappings only: 007 is no number, NO (Norway) no truth. No name twice, no aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [str(key.value) for key, _ in node.value]
        if len(set(names)) < len(names):
            raise yaml.YAMLError("a name stands twice")
        return dict(super().construct_mapping(node, deep))


def read_yaml(data: bytes) -> Any:
    """What the file says. Raises ValueError, whatever is wrong with it: with the line, where there is one."""
    text = text_of(data)
    try:
        return yaml.load(text, _Strict)  # noqa: S506 - it makes texts, lists and mappings only
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        raise ValueError(type(error).__name__ + (f" in line {mark.line + 1}" if mark else "")) from None
