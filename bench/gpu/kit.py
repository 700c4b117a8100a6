"""Build dist/gpu-kit: all that `bench.gpu` needs on a machine without a registry, in one folder of at most 64 MiB."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from bench.gpu import parts
from bench.record import CARRIED_COMMIT, commit

ROOT = Path(__file__).parents[2]
#: What the pipeline imports and such a machine lacks: pure Python, or built for its Python.
PACKAGES = ("facenet-pytorch", "pi-heif", "simplejpeg", "tenacity")
MOST_BYTES = 64 << 20
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_RUN = '''"""Runs the kit: python3 run.py --out results"""
import os
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
paths = [str(HERE / "source"), str(HERE / "site")]
sys.path[:0] = paths
os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
if "--out" not in sys.argv:
    sys.argv += ["--out", "results"]
at = sys.argv.index("--out") + 1
sys.argv[at] = str(Path(sys.argv[at]).resolve())
sys.argv += ["--photos", str(HERE / "photos")]
os.chdir(HERE / "source")
runpy.run_module("bench.gpu", run_name="__main__")
'''


def main() -> None:
    """Build it, and say how large it is."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.kit")
    parser.add_argument("--folder", type=Path, default=ROOT / "dist" / "gpu-kit")
    parser.add_argument("--python", default="3.12", help="that machine's Python")
    arguments = parser.parse_args()
    size = build(arguments.folder, lambda site: fetch(site, arguments.python))
    print(f"{arguments.folder}: {size / (1 << 20):.0f} MiB. There: python3 run.py --out results")


def build(folder: Path, packages: Callable[[Path], None], *, photographs: int = parts.PHOTOGRAPHS) -> int:
    """Write the kit into ``folder``, which is emptied; ``packages`` fills its ``site``. Returns its size in bytes.

    ``photographs``: of each kind.
    """
    shutil.rmtree(folder, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "results")
    for name in ("udfs", "bench", "tests/golden", "tests/gpu"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder / "source")
    (folder / "source" / CARRIED_COMMIT.name).write_text(commit() + "\n", encoding="utf-8")
    (folder / "site").mkdir()
    packages(folder / "site")
    for kind in (parts.FRAME, parts.MIXED):
        target = folder / "photos" / parts.folder_of(kind)
        target.mkdir(parents=True)
        for number, content in enumerate(parts.make(kind, photographs)):
            (target / f"{number:03d}.jpg").write_bytes(content)
    (folder / "run.py").write_text(_RUN, encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise SystemExit(
            f"{folder}: {size:,} bytes are more than a kit may have ({MOST_BYTES:,}); make fewer photographs"
        )
    return size


def fetch(site: Path, python: str) -> None:
    """Unpack the wheels of `PACKAGES` for that machine's Python."""
    wheels = site.parent / "wheels"
    wanted = [f"{name}=={version(name)}" for name in PACKAGES]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
               "--disable-pip-version-check", "--python-version", python, "--implementation", "cp"]  # fmt: skip
    command += [part for name in _PLATFORMS for part in ("--platform", name)]
    subprocess.run([*command, "--dest", str(wheels), *wanted], check=True)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    shutil.rmtree(wheels)


if __name__ == "__main__":
    main()
