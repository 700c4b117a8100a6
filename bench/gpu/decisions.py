"""What follows from the kit's figures, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def lines(results: dict[str, Any]) -> Iterator[str]:
    """A line for each decision that the figures allow; parts without a result allow none."""
    tests = results.get("tests", {})
    if "passed" in tests:
        yield f"Equality: {tests['passed']} tests passed, {tests['failed_tests']} failed."
    if pnet := _figures(results, "pnet"):
        ways = {name: value for name, value in pnet.items() if name.endswith("ms an image")}
        if ways:
            best = min(ways, key=ways.__getitem__)
            yield f"P-Net: {best.removesuffix(' ms an image')} is fastest, {ways[best]:.3f} ms an image."
    for part, where in (("end_to_end", ""), ("with_mps", ", under MPS")):
        rates = {name: value for name, value in _figures(results, part).items() if name.endswith("images/s")}
        for kind in sorted({name.split(",")[0] for name in rates}):
            ways = {name: rate for name, rate in rates.items() if name.startswith(kind + ",")}
            best = max(ways, key=ways.__getitem__)
            way = best.removesuffix(" images/s").split(", ", 1)[1]
            yield f"{kind}{where}: {way} is fastest, {ways[best]:,.0f} images/s."
    copies = _figures(results, "copies")
    if "race, of 150" in copies:
        yield f"nvJPEG's race: {copies['race, of 150']} of 150 pictures were wrong without a stream of its own."


def _figures(results: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = results.get(name, {})
    return {} if "failed" in found else found
