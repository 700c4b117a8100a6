"""Environments as people bring them, each with what comes of it: Spark is asked for a JVM, or an error says why not.

`python -m tests.unit.environments FOLDER` goes through the table in one process, with a `java` in FOLDER that answers
for its version, notes what it inherits, and ends as JVMs end that do not start. So a row costs no JVM.

The rows are part of the corpus of what people bring: tests/unit/odd/corpus.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.errors import FaceReindexError

JAVA = """#!/bin/sh
if [ "$1" = -version ]; then
  if [ -n "$JAVA_TOOL_OPTIONS$_JAVA_OPTIONS" ]; then echo "Picked up JAVA_TOOL_OPTIONS: $JAVA_TOOL_OPTIONS" >&2; fi
  case "$JAVA_TOOL_OPTIONS$_JAVA_OPTIONS" in *ConcMarkSweep*) echo "Unrecognized VM option" >&2; exit 1;; esac
  echo 'openjdk version "VERSION" 2025-01-01' >&2
  exit 0
fi
env > "$NOTES/environment"
printf '%s\\n' "$@" > "$NOTES/arguments"
while [ $# -gt 0 ]; do [ "$1" = --properties-file ] && cp "$2" "$NOTES/properties"; shift; done
echo "$SAYS" >&2
exit 1
"""
#: What Java says where it was reached, and its own start is all that fails.
REACHED = "this stands for a JVM that does not start"


@dataclass(frozen=True)
class Row:
    """``environ``: what is inherited, with {folder} for the table's; None takes a variable away."""

    name: str
    environ: dict[str, str | None]
    error: str = "Spark did not start."
    exit_code: int = 5
    #: What the person is told of a change.
    said: str = ""
    #: What the JVM inherits; None: the variable is not there.
    inherits: dict[str, str | None] = field(default_factory=dict)
    #: What its properties file and its arguments have.
    properties: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    java: bool = True
    says: str = REACHED


SPARK = "{pyspark}"
NO_JAVA = "Next step: install Java 17"

ROWS = (
    Row("nothing", {}, inherits={"SPARK_HOME": SPARK, "SPARK_LOCAL_IP": "127.0.0.1"}),
    # Which Spark
    Row("SPARK_HOME of a Spark that is gone", {"SPARK_HOME": "{folder}/gone"}, said="gone) holds no Spark",
        inherits={"SPARK_HOME": SPARK}),
    Row("SPARK_HOME of Spark 3.5, and its settings",
        {"SPARK_HOME": "{folder}/spark-3.5", "SPARK_CONF_DIR": "{folder}/spark-3.5/conf"},
        said="spark-3.5) holds no Spark", inherits={"SPARK_HOME": SPARK, "SPARK_CONF_DIR": SPARK + "/conf"}),
    Row("SPARK_HOME of this Spark", {"SPARK_HOME": SPARK}, inherits={"SPARK_HOME": SPARK}),
    Row("SPARK_HOME that is empty", {"SPARK_HOME": ""}, inherits={"SPARK_HOME": SPARK}),
    Row("a shell that starts notebooks", {"PYSPARK_DRIVER_PYTHON": "jupyter", "PYSPARK_DRIVER_PYTHON_OPTS": "notebook"},
        inherits={"SPARK_HOME": SPARK}),
    Row("a client of Spark Connect", {"SPARK_REMOTE": "sc://connect:15002", "SPARK_API_MODE": "connect"},
        said="SPARK_REMOTE is left aside", inherits={"SPARK_REMOTE": None, "SPARK_API_MODE": None}),
    Row("a notebook's options", {"PYSPARK_SUBMIT_ARGS": "--name mine"}, arguments=("--name", "mine", "pyspark-shell")),
    Row("a notebook's options, whole", {"PYSPARK_SUBMIT_ARGS": "--name mine pyspark-shell"},
        arguments=("--name", "mine", "pyspark-shell")),
    Row("a quotation without an end", {"PYSPARK_SUBMIT_ARGS": "--name 'mine"}, "a quotation does not end", 2,
        java=False),
    # Which Java
    Row("no Java", {"PATH": "{folder}/tools"}, "No Java: PATH has none. " + NO_JAVA, java=False),
    Row("no Java at JAVA_HOME, nor else", {"PATH": "{folder}/tools", "JAVA_HOME": "{folder}/gone"},
        "No Java: JAVA_HOME ({folder}/gone) has none. " + NO_JAVA, java=False),
    Row("no Java at JAVA_HOME", {"JAVA_HOME": "{folder}/gone"}, said="The Java on the PATH is used",
        inherits={"JAVA_HOME": None}),
    Row("JAVA_HOME that is empty", {"JAVA_HOME": ""}, inherits={"JAVA_HOME": None}),
    Row("Java 11 at JAVA_HOME", {"JAVA_HOME": "{folder}/jdk-11"}, said="bin/java is Java 11; Spark needs 17 or later.",
        inherits={"JAVA_HOME": None}),
    Row("Java 11 at JAVA_HOME, and none else", {"PATH": "{folder}/tools", "JAVA_HOME": "{folder}/jdk-11"},
        "is Java 11; Spark needs 17 or later. " + NO_JAVA, java=False),
    Row("Java 11 on the PATH", {"PATH": "{folder}/jdk-11/bin:{folder}/tools"}, "is Java 11; Spark needs 17",
        java=False),
    Row("Java 21", {"JAVA_HOME": "{folder}/jdk-21"}, inherits={"JAVA_HOME": "{folder}/jdk-21"}),
    Row("Java 25", {"JAVA_HOME": "{folder}/jdk-25"}, inherits={"JAVA_HOME": "{folder}/jdk-25"}),
    Row("a JAVA_HOME that cannot be run", {"PATH": "{folder}/tools", "JAVA_HOME": "{folder}/jdk-odd"},
        "bin/java cannot be run (Exec format error). " + NO_JAVA, java=False),
    Row("options that every Java takes", {"JAVA_TOOL_OPTIONS": "-Dsome=thing"},
        inherits={"JAVA_TOOL_OPTIONS": "-Dsome=thing"}),
    Row("options of another Java", {"_JAVA_OPTIONS": "-XX:+UseConcMarkSweepGC"},
        "does not start with the options that _JAVA_OPTIONS give", 2, java=False),
    Row("less memory than Spark takes", {"_JAVA_OPTIONS": "-Xmx200m"}, "too little of it", 2,
        says="IllegalArgumentException: System memory 202833920 must be at least 471859200."),
    # This machine
    Row("an address of a former network", {"SPARK_LOCAL_IP": "192.0.2.7"},
        said="SPARK_LOCAL_IP (192.0.2.7) is no address of this machine", inherits={"SPARK_LOCAL_IP": "127.0.0.1"}),
    Row("a name that does not resolve", {"SPARK_LOCAL_HOSTNAME": "no..name"},
        said="SPARK_LOCAL_HOSTNAME (no..name) is no address of this machine",
        inherits={"SPARK_LOCAL_HOSTNAME": None, "SPARK_LOCAL_IP": "127.0.0.1"}),
    Row("an address of this machine", {"SPARK_LOCAL_IP": "127.0.0.1"}, inherits={"SPARK_LOCAL_IP": "127.0.0.1"}),
    Row("a temporary folder of Java's that will not do", {"JAVA_TOOL_OPTIONS": "-Djava.io.tmpdir=/nonexistent"},
        properties=("-Dorg.xerial.snappy.tempdir={temporary}", "-DZstdTempFolder={temporary}")),
    Row("folders for shuffles that cannot be made", {"SPARK_LOCAL_DIRS": "/proc/none"},
        "temporary files cannot be written there", 2, java=False),
    Row("Hadoop's settings of a cluster", {"HADOOP_CONF_DIR": "{folder}/hadoop"},
        said="Paths without a scheme are on this machine", properties=("spark.hadoop.fs.defaultFS=file:///",)),
    Row("a user without a name", {}, "This machine has no name for the user", 2,
        says="LoginException: java.lang.NullPointerException: invalid null input: name"),
    Row("a user without a home", {}, "This machine has no name for the user", 2,
        says='IllegalArgumentException: basedir must be absolute: ?/.ivy2/local'),
    Row("no Maven repository, or a proxy before it", {"https_proxy": "http://proxy:3128"}, "-Dhttps.proxyHost",
        says=":: UNRESOLVED DEPENDENCIES ::"),
    Row("a host name that does not resolve", {}, "no address that it can listen at", 2,
        says="java.net.UnknownHostException: host: Temporary failure in name resolution"),
    # What else shells have
    Row("a German locale, and one of one byte", {"LANG": "de_DE.ISO-8859-1", "LC_ALL": "C"},
        inherits={"LANG": "de_DE.ISO-8859-1", "LC_ALL": "C.UTF-8"}),
    Row("no locale, as in cron", {}, inherits={"LC_ALL": None, "LC_CTYPE": "C.UTF-8"}),
    Row("a locale that has all names", {"LANG": "de_DE.utf8"}, inherits={"LC_ALL": None, "LC_CTYPE": None}),
    Row("a clock in Kolkata", {"TZ": "Asia/Kolkata"}),
)  # fmt: skip


def places(folder: Path) -> dict[str, str]:
    """What the braces of a row stand for."""
    import pyspark

    temporary = f"{tempfile.gettempdir()}/face-reindex-"
    return {"folder": str(folder), "pyspark": str(Path(pyspark.__file__).parent), "temporary": temporary}


def furnish(folder: Path) -> None:
    """The places that rows name: Javas, tools without one, another Spark."""
    for name, version in (("jdk-11", "11.0.20"), ("jdk-17", "17.0.9"), ("jdk-21", "21.0.1"), ("jdk-25", "25")):
        java = folder / name / "bin" / "java"
        java.parent.mkdir(parents=True)
        java.write_text(JAVA.replace("VERSION", version))
        java.chmod(0o755)
    odd = folder / "jdk-odd" / "bin" / "java"
    odd.parent.mkdir(parents=True)
    odd.write_bytes(b"\x7fELF of another processor")
    odd.chmod(0o755)
    (folder / "tools").mkdir()
    for tool in ("sh", "bash", "env", "dirname", "cat", "cp", "ps", "grep", "tr", "which", "uname", "python3"):
        if found := shutil.which(tool):
            (folder / "tools" / tool).symlink_to(found)
    other = folder / "spark-3.5"
    for part in ("bin/spark-submit", "jars/spark-core_2.12-3.5.1.jar", "conf/spark-defaults.conf"):
        (other / part).parent.mkdir(parents=True, exist_ok=True)
        (other / part).touch(mode=0o755)
    (folder / "hadoop").mkdir()


def outcome(row: Row, folder: Path, base: dict[str, str], where: dict[str, str]) -> dict[str, object]:
    """What comes of a session that is opened in this row's environment."""
    from jobs.session import open_session

    notes = folder / "notes"
    shutil.rmtree(notes, ignore_errors=True)
    notes.mkdir()
    os.environ.clear()
    os.environ.update(base, NOTES=str(notes), SAYS=row.says, PATH=f"{folder}/jdk-17/bin:{folder}/tools")
    for name, value in row.environ.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value.format(**where)
    said: list[str] = []
    try:
        open_session("environments", None, said.append)
        ended = ("", 0)
    except FaceReindexError as error:
        ended = (str(error), error.exit_code)
    except Exception as error:
        ended = (f"unforeseen {type(error).__name__}: {error}", -1)
    noted = {path.name: path.read_text() for path in notes.iterdir()}
    return {"error": ended[0], "exit_code": ended[1], "said": said, **noted}


def all_told(folder: Path) -> dict[str, dict[str, Any]]:
    """What comes of all rows, by their names, from one process of their own."""
    command = [sys.executable, "-m", "tests.unit.environments", str(folder)]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return {told["name"]: told for told in map(json.loads, done.stdout.splitlines())}


def check(row: Row, told: dict[str, Any]) -> None:
    """What was ``told`` of a row is all that it says, and nothing else was changed or said."""
    where = told["where"]
    assert (told["exit_code"], row.error.format(**where) in told["error"]) == (row.exit_code, True), told
    assert told["error"].count("Next step: ") == 1
    # What is changed without a word is what nobody can have meant.
    lines = [line for line in told["said"] if not line.startswith("Spark is starting")]
    assert (len(lines), row.said in "".join(lines)) == (1 if row.said else 0, True), lines
    assert ("arguments" in told) == row.java
    if row.java:
        inherited = dict(line.split("=", 1) for line in told["environment"].splitlines() if "=" in line)
        for name, value in row.inherits.items():
            assert inherited.get(name) == (value and value.format(**where)), name
        for text in row.properties:
            assert text.format(**where) in told["properties"]
        if row.arguments:
            assert tuple(told["arguments"].splitlines()[-len(row.arguments) :]) == row.arguments


def main(folder: Path) -> None:
    """Every row's outcome, one JSON object a line."""
    furnish(folder)
    where = places(folder)
    base = {"HOME": str(folder), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    for row in ROWS:
        print(json.dumps({"name": row.name, **outcome(row, folder, base, where), "where": where}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
