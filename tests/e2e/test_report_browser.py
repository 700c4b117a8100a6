"""The report in a real browser: it loads, the console stays empty, and it can be read on a phone and in the dark."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobs.reporting.html import render
from tests.unit.reporting.reports import EARLY, FAILED, GOOD, LARGE, NOTHING

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on the PATH (Debian: apt-get install chromium)"),
]

PROBE = Path(__file__).with_name("probe.html").read_text()
SCHEMES = {"dark": 0, "light": 1}


def browse(target: Path, scheme: str = "light") -> tuple[str, list[str]]:
    """What a page is after loading, and what the console and the network said."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={target.parent / 'profile'}", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        "--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom", target.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=90)
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


def looked_at(shown: str, folder: Path, scheme: str) -> tuple[list[dict[str, Any]], list[str]]:
    """What the probe found in frames as wide as a phone and as a screen."""
    folder.mkdir(exist_ok=True)
    target = folder / "probe.html"
    # In a string of a script, where `</` would end it.
    target.write_text(PROBE.replace('"PAGE"', json.dumps(shown).replace("</", "<\\/")))
    dom, console = browse(target, scheme)
    found = re.search(r"<pre>(.*)</pre>", dom, re.DOTALL)
    assert found is not None, dom[-500:]
    return json.loads(html.unescape(found[1])), console


def test_the_page_itself_loads_and_the_console_stays_empty(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text(render(GOOD), encoding="utf-8")
    dom, console = browse(target)
    assert console == []
    assert "<title>reindex nightly-2026-05-28" in dom
    assert "Expiries ahead" in dom


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_can_be_read_on_a_phone_and_on_a_screen(tmp_path: Path, scheme: str) -> None:
    for number, report in enumerate((GOOD, FAILED, LARGE) if scheme == "light" else (GOOD, EARLY, NOTHING)):
        frames, console = looked_at(render(report), tmp_path / str(number), scheme)
        assert console == []
        assert [frame["width"] for frame in frames] == [390, 1280]
        for frame in frames:
            assert frame["scroll"] <= frame["width"]
            assert frame["texts"] > 20
            assert frame["found"] == []
            assert frame["dark"] is (scheme == "dark")
            assert frame["requests"] == []


def test_the_probe_finds_what_it_looks_for(tmp_path: Path) -> None:
    wrong = (
        '<p style="color:#aaa">pale</p><p style="font-size:9px">small</p><div style="width:900px">wide</div>'
        '<img src="nowhere.png"><script>console.error("said")</script></main>'
    )
    shown = render(GOOD).replace("</main>", wrong)
    (phone, _), console = looked_at(shown, tmp_path / "wrong", "light")
    assert phone["scroll"] > phone["width"]
    assert {text.split(":")[0] for text in phone["found"]} >= {"pale", "small"}
    # The page's own policy keeps the script and the picture out, and the console says so.
    assert len(console) >= 2
    assert "said" not in " ".join(console)
