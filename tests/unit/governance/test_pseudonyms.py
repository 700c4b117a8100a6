"""Names become pseudonyms: one for all spellings, found under every key and rule."""

from __future__ import annotations

import re
import sys
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.governance.decide import PRINCIPAL_PATTERN
from jobs.governance.pseudonyms import Pseudonyms, normalised, pseudonyms_of
from jobs.governance.tombstones import CONTENT, IMAGE, LEFT_CONTENT, KeyRing, _digesting, key_ring
from tests.unit.governance.names import rule_1, rule_2, rule_3, settings_with

pytestmark = pytest.mark.unit

SPELLINGS = [
    "José Núñez",
    unicodedata.normalize("NFD", "José Núñez"),
    "JOSÉ NÚÑEZ",
    "  José\t Núñez \n",
    "José\u00a0Núñez",
    "José\u2003\u3000Núñez",
    "\ufeffJo\u200bsé Nú\u00adñez\u2060",
    "Ｊｏｓé Núñez",
    "Jose\u034f\u0301 Núñez\ufe0f\x00",
]


def pseudonyms(**secrets: str) -> Pseudonyms:
    found = pseudonyms_of(settings_with(**secrets))
    assert found is not None
    return found


def test_guarantee_9_one_person_has_one_pseudonym_however_the_name_is_typed() -> None:
    names = pseudonyms(hmac_key="k")
    assert {names.of(name)[0] for name in SPELLINGS} == {rule_3("josé núñez", "k")}
    assert names.of("O\u2019Neill\u2010Smith")[0] == names.of("o'neill-smith")[0]
    assert names.of("STRASSE")[0] == names.of("straße")[0]
    assert names.of("Anne\u2212Marie\u2010Li")[0] == names.of("anne-marie-li")[0]
    assert names.of("\u0645\u062d\u0645\u0640\u0640\u062f")[0] == names.of("\u0645\u062d\u0645\u062f")[0]
    assert len({names.of(f"O{mark}Neill")[0] for mark in "'\u2019\u055a\ua78c\ua78b\u05f3\u2035"}) == 1
    # Accents and order tell people apart.
    assert len({names.of(name)[0] for name in ("José", "Jose", "Nuñez José", "José Nuñez")}) == 4


def test_guarantee_9_what_is_no_name_has_no_pseudonym() -> None:
    names = pseudonyms(hmac_key="k")
    assert [names.of(name) for name in ("", " ", "\u00a0\u200b", "\x00\t", "\u2800\u3164")] == [[]] * 5


# As people write them: small, with initials, in capitals, by Turkish rules; and by those of other languages.
# 1 and ! stand for the i without a dot, and for the capital with one.
TURKISH = [
    [text.replace("1", "\u0131").replace("!", "\u0130") for text in some]
    for some in (
        ["ibrahim", "!brahim", "!BRAH!M", "IBRAHIM", "Ibrahim", "I\u0307BRAHI\u0307M", "i\u0307brahim"],
        ["1ş1k", "Iş1k", "IŞIK", "işik", "!Ş!K", "Işik"],
        ["Y1ld1r1m Iş1k Demir", "YILDIRIM IŞIK DEM!R", "y1ld1r1m 1ş1k demir", "yildirim işik demir"],
    )
]


@pytest.mark.parametrize("spellings", TURKISH)
def test_guarantee_9_an_i_is_one_with_its_dot_or_without(spellings: list[str]) -> None:
    names = pseudonyms(hmac_key="k")
    assert {names.of(name)[0] for name in spellings} == {rule_3(spellings[0], "k")}


@pytest.mark.parametrize("spellings", TURKISH)
def test_guarantee_13_who_stands_under_rule_2_is_found_by_another_spelling(spellings: list[str]) -> None:
    """By Turkish spellings, whichever is stored; and by all where the name has i of one kind only."""
    names, turkish = pseudonyms(hmac_key="k"), spellings[:3]
    for asked in turkish if " " in spellings[0] else spellings:
        assert {rule_2(stored, "k") for stored in turkish} <= set(names.of(asked)), asked


def test_the_rule_is_stable_for_every_character() -> None:
    """A pseudonym that is stored must be found for ever: what the rule gives, it leaves as it is."""
    unstable = []
    for point in range(sys.maxunicode + 1):
        once = normalised(f"a{chr(point)}b")
        if normalised(once) != once:
            unstable.append(point)
    assert unstable == []


@given(
    st.text(
        st.characters(exclude_categories=["Cs"])
        | st.sampled_from("ŉßﬁİIiΣ\u0131\u0307\u0323\u0640\u2212\u0345\u0301\u034f\u200d\u00a0\u2019\u00b4 "),
        max_size=12,
    )
)
def test_the_rule_is_stable_and_blind_to_form_and_case(name: str) -> None:
    once = normalised(name)
    assert normalised(once) == once
    assert {normalised(unicodedata.normalize(form, name)) for form in ("NFC", "NFD")} == {once}
    assert normalised(f"\u00a0{name}\u200b ") == once


def test_guarantee_13_pseudonyms_of_former_keys_and_rules_are_found() -> None:
    found = pseudonyms(hmac_key=" new , old ").of(" José  Núñez")
    assert found[0] == rule_3("José Núñez", "new")
    assert set(found) >= {rule_3("José Núñez", "old"), rule_2("José Núñez", "new"), rule_2("José Núñez", "old")}
    for spelt in ("José  Núñez", unicodedata.normalize("NFD", "José  Núñez"), "José Núñez"):
        assert {rule_1(spelt, "new"), rule_1(spelt, "old")} <= set(found)
    # Plain names, one key: no more than one a rule.
    assert pseudonyms(hmac_key="k").of("A Person") == [rule("A Person", "k") for rule in (rule_3, rule_2, rule_1)]


def test_guarantee_13_pseudonyms_of_releases_that_took_the_variable_whole_are_found() -> None:
    assert rule_1("A", "new,old") in pseudonyms(hmac_key="new,old").of("A")
    assert rule_1("A", "k\n") in pseudonyms(hmac_key="k\n").of("A")
    # They had the former key put among those of the tombstones.
    assert rule_1("A", "old") in pseudonyms(hmac_key="new", tombstone_keys="new,old").of("A")


def test_guarantee_13_both_rings_are_read_alike() -> None:
    ring = KeyRing.of(["new", "old"])
    for text in ("new,old", " new , old ", "new,,old,", "\tnew\n,\u00a0old", "new,old,new"):
        assert key_ring(settings_with(tombstone_keys=text)).keys == ring.keys
        assert key_ring(settings_with(hmac_key=text)).keys == pseudonyms(hmac_key=text).ring.keys == ring.keys
        assert list(pseudonyms(hmac_key=text).ring.keys) == list(ring.keys)
    assert pseudonyms_of(settings_with(hmac_key=" , ")) is pseudonyms_of(settings_with()) is None


def test_pseudonyms_of_all_rules_have_the_form_and_no_key_shows() -> None:
    names = pseudonyms(hmac_key="s3cret,0ld")
    assert all(re.fullmatch(PRINCIPAL_PATTERN, found) for found in names.of("A Person"))
    assert "s3cret" not in repr(names)
    assert "0ld" not in str(names)


def test_guarantee_9_what_could_not_be_read_has_no_tombstone_that_others_with_the_same_fault_would_share() -> None:
    ring, unread = KeyRing.of(["k"]), "unread:EMPTY:e3b0c442"
    values = pa.array([unread, "e3b0c442", None])
    kinds = [CONTENT, LEFT_CONTENT, IMAGE]
    batch = pa.RecordBatch.from_pydict({"row_key": values, **dict.fromkeys(kinds, values)})
    *contents, images = _digesting(kinds, ring.keys)(iter([batch]))
    for kind, found in zip(kinds, contents, strict=False):
        assert found.column("digest").to_pylist() == [None, ring.digest(kind, "e3b0c442"), None]
    assert images.column("digest").to_pylist() == [ring.digest(IMAGE, unread), ring.digest(IMAGE, "e3b0c442"), None]
