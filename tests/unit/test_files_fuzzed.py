"""Small files from people's hands, whatever they hold: read, or refused by name, and nothing unforeseen."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.erasure.verify import _read_canaries
from jobs.errors import BadInput, FaceReindexError, SettingsError
from jobs.governance.jurisdictions import load_rules
from jobs.index.protocol import CollectionInfo
from jobs.session import packaged_conf
from jobs.settings import load_settings

pytestmark = pytest.mark.unit

RULES = packaged_conf("jurisdictions.yaml").read_text(encoding="utf-8")
SCRAPS = st.sampled_from(
    ["rules", ":", " ", "\n", "- ", "name", "[", "]", "{", "}", "&a ", "*a", "<<: ", "!!timestamp ", "!!int ",
     "2026-99-99", "0x", "'", '"', "\x00", "\u2028", "\\ud800", "warehouse: w", "governance:\n  purposes: ", "1e999",
     "null", "[" * 300, "00" * 3]
)  # fmt: skip
FILES = st.lists(SCRAPS, max_size=14).map("".join).map(str.encode) | st.binary(max_size=40)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(FILES)
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    for reader in (load_rules, _read_canaries, lambda place: load_settings(place, environ={})):
        with contextlib.suppress(FaceReindexError):
            reader(str(path))
    with contextlib.suppress(FaceReindexError):
        load_settings(overrides=["warehouse=" + data.decode("utf-8", "replace")], environ={})
    CollectionInfo.from_json(data.decode("utf-8", "replace"))


def test_guarantee_10_a_canary_under_another_ones_name_is_refused(tmp_path: Path) -> None:
    """The first of the two was not looked for."""
    path = tmp_path / "canaries.json"
    path.write_text('{"a": "00ff", "b": "0102"}')
    assert _read_canaries(str(path)) == {"a": b"\x00\xff", "b": b"\x01\x02"}
    path.write_text('{"a": "00ff", "b": "0102", "a": "00ff"}')
    with pytest.raises(BadInput, match="a name stands twice"):
        _read_canaries(str(path))


@pytest.mark.parametrize(
    "text",
    [
        RULES.replace("    jurisdictions:", "    jurisdictions: [XX]\n    jurisdictions:", 1),
        RULES + "\nrules: []\n",
        "a: &a [x]\nrules: *a\n",
        "[" * 2_000,
    ],
)
def test_guarantee_4_rules_that_say_something_twice_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rules.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"rules\.yaml"):
        load_rules(str(tmp_path / "rules.yaml"))


def test_norway_is_a_country_and_no_negation(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES.replace('"NO"', "NO, 007"), encoding="utf-8")
    named = {name for rule in load_rules(str(tmp_path / "rules.yaml")) for name in rule.jurisdictions}
    assert {"NO", "007"} <= named
