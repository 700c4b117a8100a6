"""Pseudonyms as each release stored them."""

from __future__ import annotations

import hashlib
import hmac

from jobs.governance.pseudonyms import _rule_2, normalised
from jobs.settings import Settings, load_settings


def settings_with(**secrets: str) -> Settings:
    return load_settings(environ={f"FACE_REINDEX_{name.upper()}": value for name, value in secrets.items()})


def rule_1(name: str, key: str) -> str:
    """What releases before rule 2 stored."""
    return "hmac:" + hmac.new(key.encode(), name.strip().encode(), hashlib.sha256).hexdigest()


def rule_2(name: str, key: str) -> str:
    """What releases before rule 3 stored."""
    return "hmac2:" + hmac.new(key.encode(), _rule_2(name).encode(), hashlib.sha256).hexdigest()


def rule_3(name: str, key: str) -> str:
    return "hmac3:" + hmac.new(key.encode(), normalised(name).encode(), hashlib.sha256).hexdigest()
