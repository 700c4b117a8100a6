"""`make bench`: one benchmark after the other, each in a process of its own, then their tables in docs/speed.md.

python -m bench                  # those of the images; about 15 minutes on two cores
python -m bench loading index_types  # those of Milvus; erasing: that of governance; fixed: of the jobs themselves
"""

from __future__ import annotations

import subprocess
import sys
import time

from bench import table

IMAGES = ("recall", "growth", "pipeline")
BENCHMARKS = (*IMAGES, "loading", "index_types", "erasing", "fixed")


def main(names: list[str]) -> int:
    """Run ``names``, or those of the images; the exit code of the first that failed."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in names or IMAGES:
        began = time.monotonic()
        print(f"== {name}", flush=True)
        code = subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode
        if code:
            print(f"bench.{name} ended with exit code {code}", file=sys.stderr)
            return code
        print(f"== {name}: {time.monotonic() - began:.0f} s", flush=True)
    table.main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
