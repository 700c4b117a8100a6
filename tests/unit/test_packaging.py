"""What is shipped, and how its parts may depend on each other. No JVM, no network."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import EntryPoint, packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from jobs.__main__ import JOBS, main
from jobs.session import read_properties

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"

# --- One-way imports -------------------------------------------------------------------------------------------------
# From the bottom to the top. A part imports itself and what stands in an earlier line of this list, and so nothing that
# stands beside it. An import for types only counts like any other, and no circle is possible. The longest name that
# fits a module is its part. `jobs.*` are the entry points: all of jobs/*.py that no other line names.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("udfs", "jobs.errors", "jobs.formatting", "jobs.addresses", "jobs.texts", "jobs.schemas", "jobs.index.protocol"),
    ("jobs.strict_yaml",),
    ("jobs.run_ids", "jobs.private", "jobs.settings"),
    ("jobs.environment",),
    ("jobs.session", "jobs.index.milvus"),
    ("jobs.tables",),
    ("jobs.governance", "jobs.index"),
    ("jobs.embedding", "jobs.runs"),
    ("jobs.erasure", "jobs.planning", "jobs.reporting", "jobs.evaluation", "jobs.diagnosis"),
    ("jobs.steps", "jobs.cli"),
    ("jobs.*", "jobs.__main__"),
)
INDEX = {"jobs.index", "jobs.index.milvus", "jobs.index.protocol"}
# What a part keeps away from although it is lower, and why.
KEEPS_FROM: dict[str, set[str]] = {
    **{
        part: {"udfs", *INDEX}
        for part in ("jobs.run_ids", "jobs.private", "jobs.settings", "jobs.environment", "jobs.session")
    },
    # A table is a table, whatever is made of it.
    "jobs.tables": INDEX,
    # Whether an image may be read is decided without reading it, and whether there is an index or not.
    "jobs.governance": {"udfs", *INDEX},
    "jobs.embedding": INDEX,
    # The driver knows a server, and none of our tables.
    "jobs.index.milvus": {"udfs", "jobs.schemas"},
    # The command line knows a run, and nothing of what runs do.
    "jobs.cli": {
        "udfs", *INDEX, "jobs.governance", "jobs.embedding", "jobs.erasure", "jobs.planning", "jobs.reporting",
        "jobs.evaluation", "jobs.diagnosis",
    },
    # Which jobs there are is told without loading one.
    "jobs.__main__": {part for layer in LAYERS for part in layer},
}  # fmt: skip
LEVEL = {part: level for level, layer in enumerate(LAYERS) for part in layer}


def _modules(*packages: str) -> dict[str, Path]:
    found = {}
    for path in sorted(path for package in packages for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules("jobs", "udfs")
ENTRY_POINTS = {name for name in MODULES if re.fullmatch(r"jobs\.\w+", name) and name not in LEVEL}


def _part(module: str) -> str:
    if module in ENTRY_POINTS:
        return "jobs.*"
    fitting = [part for part in LEVEL if f"{module}.".startswith(f"{part}.")]
    assert fitting, f"{module} belongs to no part of the list"
    return max(fitting, key=len)


def _imported(path: Path, *, at_load: bool = False) -> Iterator[str]:
    """Names that a module imports, for types only too; ``at_load``: neither those, nor those inside functions."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if at_load and isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)
        elif not (at_load and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)


def _ours(module: str) -> set[str]:
    """Modules of the project that a module imports; the package `jobs` itself holds nothing."""
    return {name for name in _imported(MODULES[module]) if name.split(".")[0] in {"jobs", "udfs"}} - {"jobs"}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "jobs"])
def test_imports_go_one_way(module: str) -> None:
    part = _part(module)
    others = {_part(name) for name in _ours(module)} - {part}
    assert {other for other in others if LEVEL[other] >= LEVEL[part]} == set()
    assert others & KEEPS_FROM.get(part, set()) == set()


def test_no_entry_point_imports_another() -> None:
    """Not even for a step that it takes: steps are in jobs/steps."""
    assert {f"jobs.{name}" for name in JOBS} == ENTRY_POINTS
    assert {(module, name) for module in MODULES for name in _ours(module) & ENTRY_POINTS} == set()


def test_no_module_imports_itself_through_others() -> None:
    graph = TopologicalSorter({module: _ours(module) - {module} for module in MODULES})
    graph.prepare()  # raises on a circle, which it names


def test_every_package_says_what_it_holds() -> None:
    for path in MODULES.values():
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_no_test_module_imports_another() -> None:
    """What two of them need is in a module of its own beside them: so each can run alone, and be moved."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        taken = {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
        taken |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        assert {name for name in taken if re.match(r"tests\.(\w+\.)*test_", name)} == set(), path


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("udfs")])
def test_executor_code_needs_no_session_and_no_milvus(module: str) -> None:
    names = {name.split(".")[0] for name in _imported(MODULES[module])}
    at_load = {name.split(".")[0] for name in _imported(MODULES[module], at_load=True)}
    assert "pymilvus" not in names
    assert "jobs" not in names
    assert module == "udfs.spark" or "pyspark" not in at_load


@pytest.mark.parametrize(
    ("package", "taken"),
    [
        ("udfs", sys.stdlib_module_names),
        ("jobs", sys.stdlib_module_names | set(packages_distributions())),
    ],
)
def test_no_module_hides_one_of_a_library(package: str, taken: frozenset[str]) -> None:
    """`spark-submit jobs/x.py` puts jobs/ first on the path, where a queue.py would be everybody's queue."""
    ours = {path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or path.is_dir()}
    assert ours & taken <= {"__init__", "__main__"}


# --- What is shipped -------------------------------------------------------------------------------------------------


def _setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("face_reindex_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def zips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The zip of --py-files, built twice."""
    built: list[Path] = []
    for _ in range(2):
        folder = tmp_path_factory.mktemp("dist")
        command = [sys.executable, "setup.py", "--quiet", "pyfiles", "--dist-dir", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        built += folder.glob("*.zip")
    return built


def test_the_zip_is_reproducible(zips: list[Path]) -> None:
    first, second = zips
    assert first.name == f"face_reindex-{_setup().VERSION}.zip"
    assert first.read_bytes() == second.read_bytes()


def test_the_zip_holds_the_two_packages_and_nothing_else(zips: list[Path]) -> None:
    with zipfile.ZipFile(zips[0]) as archive:
        names = archive.namelist()
    code = {path.relative_to(ROOT).as_posix() for path in MODULES.values()}
    data = {f"jobs/_conf/{path.name}" for path in CONF.iterdir() if path.is_file()}
    assert {name for name in names if name.endswith(".py") and not name.startswith("jobs/_conf/")} == code
    data |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "jobs" / "reporting" / "templates").iterdir()}
    assert data <= set(names)
    assert not [
        name for name in names if not name.startswith(("jobs/", "udfs/")) or "test" in name or "__pycache__" in name
    ]


def test_the_console_script_is_what_lists_and_runs_the_jobs() -> None:
    (script,) = _setup().SCRIPTS
    name, value = script.split(" = ")
    entry = EntryPoint(name=name, value=value, group="console_scripts")
    assert (entry.name, entry.load()) == ("face-reindex", main)


def test_the_zip_can_be_imported_from(zips: list[Path], tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(zips[0])!r}); import jobs.errors; print(jobs.errors.__file__)"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.startswith(str(zips[0]))


def test_the_report_finds_its_templates_in_the_zip(zips: list[Path], tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(zips[0])!r}); from jobs.reporting import html; "
        "print(html.__file__); html._environment().get_template('report.html')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.startswith(str(zips[0]))


def _lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_lock_pins_every_requirement_within_its_range() -> None:
    setup = _setup()
    lock = {_canonical(name): version for name, version in _lock().items()}
    for text in {*setup.REQUIRES, *setup.TEST, *setup.DEMO}:
        wanted = Requirement(text)
        assert wanted.specifier.contains(lock[_canonical(wanted.name)]), text


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- Spark properties ------------------------------------------------------------------------------------------------

PROPERTIES = sorted(CONF.glob("spark-*.conf"))
# These decide whether a job is right, not how fast it is: the same wherever it runs.
SAME_EVERYWHERE = (
    "spark.jars.packages",
    "spark.jars.excludes",
    "spark.sql.extensions",
    "spark.sql.catalog.spark_catalog",
    "spark.sql.session.timeZone",
    "spark.sql.execution.arrow.maxBytesPerBatch",
    "spark.python.worker.reuse",
    "spark.speculation",
    "spark.hadoop.parquet.block.size",
    "spark.hadoop.parquet.page.size.row.check.min",
    "spark.hadoop.parquet.enable.dictionary#content",
    "spark.hadoop.parquet.column.statistics.enabled#content",
)


def test_no_task_of_the_whole_job_waits_for_a_gpu() -> None:
    for path in PROPERTIES:
        assert "spark.task.resource.gpu.amount" not in read_properties(str(path)), path.name


@pytest.mark.parametrize("path", PROPERTIES, ids=lambda path: path.name)
def test_every_property_is_said_once_and_has_its_reason(path: Path) -> None:
    """A comment stands above each property, or above the ones that it belongs to."""
    keys: list[str] = []
    explained = False
    for line in path.read_text(encoding="utf-8").splitlines():
        offered = re.match(r"# spark\.\S+ {2,}\S", line)
        if line.startswith("#") and not offered:
            explained = not line.startswith("# ---")
        elif line:
            assert explained, line
            if not offered:
                keys.append(line.split()[0])
        else:
            explained = False
    assert len(keys) == len(set(keys)) == len(read_properties(str(path)))


def test_what_decides_results_is_the_same_on_every_cluster() -> None:
    assert {path.stem for path in PROPERTIES} == {"spark-local", "spark-standalone", "spark-yarn", "spark-kubernetes"}
    for key in SAME_EVERYWHERE:
        # On Kubernetes the image holds the JARs; what would fetch them is offered only.
        offered = "# " if key.startswith("spark.jars.") else ""
        said = [
            re.findall(rf"^(?:{offered})?{re.escape(key)} +(\S+)$", path.read_text(), re.MULTILINE)
            for path in PROPERTIES
        ]
        assert len({values[0] for values in said}) == 1, key


def test_the_delta_jar_fits_the_pinned_spark() -> None:
    lock = {_canonical(name): version for name, version in _lock().items()}
    spark = ".".join(lock["pyspark"].split(".")[:2])
    packages = read_properties(str(CONF / "spark-local.conf"))["spark.jars.packages"]
    assert packages == f"io.delta:delta-spark_{spark}_2.13:{lock['delta-spark']}"


# --- The GPU discovery script ----------------------------------------------------------------------------------------

TWO = "GPU-aaaa\nGPU-bbbb\n"
DISCOVERY: list[tuple[str, str | None, dict[str, str], int]] = [
    ("no driver installed", None, {}, 0),
    ("a driver without a device", "No devices were found\n", {}, 0),
    ("all", TWO, {}, 2),
    ("one of two", TWO, {"CUDA_VISIBLE_DEVICES": "1"}, 1),
    ("one by its id", TWO, {"CUDA_VISIBLE_DEVICES": "GPU-bbbb"}, 1),
    ("none wanted", TWO, {"CUDA_VISIBLE_DEVICES": ""}, 0),
    ("none wanted, the other way", TWO, {"CUDA_VISIBLE_DEVICES": "-1"}, 0),
    ("nothing after one that is not there", TWO, {"CUDA_VISIBLE_DEVICES": "0,7,1"}, 1),
    ("a slice", TWO, {"CUDA_VISIBLE_DEVICES": "MIG-cccc"}, 1),
    ("hidden by the container", TWO, {"NVIDIA_VISIBLE_DEVICES": "void"}, 0),
    ("numbered anew by the container", TWO, {"NVIDIA_VISIBLE_DEVICES": "2,3"}, 2),
]


@pytest.mark.parametrize(("uuids", "env", "count"), [row[1:] for row in DISCOVERY], ids=[row[0] for row in DISCOVERY])
def test_gpu_discovery(tmp_path: Path, uuids: str | None, env: dict[str, str], count: int) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 127\n" if uuids is None else f"#!/bin/sh\ncat <<'E'\n{uuids}E\n")
    tool.chmod(0o755)
    done = subprocess.run(
        [str(CONF / "gpu-discovery.sh")],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **env},
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout) == {"name": "gpu", "addresses": [str(number) for number in range(count)]}
