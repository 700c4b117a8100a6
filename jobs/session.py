"""The Spark session, the same under `spark-submit` and `python -m`."""

from __future__ import annotations

import os
import re
import shlex
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs import environment
from jobs.errors import DependencyUnavailable, FaceReindexError, SettingsError
from jobs.private import UMASK, UMASK_PROPERTY, keep_private, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from py4j.java_gateway import JavaGateway  # type: ignore[import-untyped]
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

_DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
_PYSPARK: Final = "4.2"
_DRIVER_OPTIONS: Final = "spark.driver.extraJavaOptions"
_FILE_SYSTEM: Final = "spark.hadoop.fs.defaultFS"
_PROPERTY: Final = re.compile(r"([^\s=:]+)(?:[ \t\f]*[=:][ \t\f]*|[ \t\f]+)(.*)", re.DOTALL)
# What Spark says where it does not start, and what that means.
_STARTS: Final = (
    (
        r"Could not parse Master URL",
        SettingsError,
        "spark.master is none that Spark knows.",
        "correct it in the properties file: local[*], spark://HOST:7077, yarn or k8s://….",
    ),
    (
        r"Cannot assign requested address|UnknownHostException|UnresolvedAddressException",
        SettingsError,
        "Spark's driver has no address that it can listen at.",
        "set spark.driver.bindAddress and spark.driver.host (or SPARK_LOCAL_IP) to an address of this machine.",
    ),
    (
        r"BindException|Address already in use|failed after \d+ retries",
        DependencyUnavailable,
        "A port that Spark's driver was told to use is taken.",
        "set spark.driver.port, spark.blockManager.port or spark.ui.port to a free one, or unset it; "
        "or raise spark.port.maxRetries.",
    ),
    (
        r"A secret key must be specified",
        SettingsError,
        "spark.authenticate is on, and this cluster needs a secret for it.",
        "set spark.authenticate.secret in a properties file that only you may read, and on master and workers "
        "(docs/security.md).",
    ),
    (
        r"All masters are unresponsive|Failed to connect to master|stopped SparkContext",
        DependencyUnavailable,
        "The cluster at spark.master does not answer.",
        "check the address and that the master runs, then run the same command again.",
    ),
    (
        r"(?:System|Executor) memory \d+ must be at least|Could not reserve enough space|"
        r"insufficient memory for the Java",
        SettingsError,
        "Spark's Java has not the memory that it was told to take, or too little of it.",
        "set spark.driver.memory to what this machine has, 1g at the least, and take -Xmx out of JAVA_TOOL_OPTIONS, "
        "JDK_JAVA_OPTIONS and _JAVA_OPTIONS.",
    ),
    (
        r"invalid null input: name|basedir must be absolute: \?",
        SettingsError,
        "This machine has no name for the user that runs the job, and Hadoop needs one.",
        "give the user an entry with a home in /etc/passwd (a container's image or its entry point does), or run as "
        "another one.",
    ),
    (
        r"UNRESOLVED DEPENDENCIES|unresolved dependency|Server access error",
        DependencyUnavailable,
        "Delta's JARs cannot be fetched: the Maven repository is out of reach, or has them not.",
        "check the network (Java does not read http_proxy: behind a proxy add -Dhttps.proxyHost and -Dhttps.proxyPort "
        "to spark.driver.extraJavaOptions), or name the JARs in spark.jars instead of spark.jars.packages.",
    ),
)


def open_session(
    app_name: str, properties_file: str | None = None, say: Callable[[str], None] | None = None
) -> SparkSession:
    """Return a session that has Delta.

    Under `spark-submit` the properties come from there. Under `python -m` they come from ``properties_file``, or
    from the packaged `conf/spark-local.conf`; ``say`` is told then that the start takes a while. What this process
    inherited and Spark would not start with is set right (`jobs.environment`), and ``say`` told what was.

    Raises:
        SettingsError: Delta is not configured, or Spark cannot start as it is configured.
        DependencyUnavailable: no Java, Delta's JARs cannot be fetched, or the cluster does not answer.
    """
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    submitted, say = "PYSPARK_GATEWAY_PORT" in os.environ, say or _nobody
    environment.check_pyspark(_PYSPARK)
    environment.leave_spark_connect(say)
    if submitted:
        # Without it SparkConf() knows nothing of the properties that spark-submit was given.
        SparkContext._ensure_initialized()
    _same_python_for_workers(submitted)
    try:
        if SparkContext._active_spark_context is None and not submitted:
            conf = SparkConf().setAll(list(read_properties(properties_file).items())).setAppName(app_name)
            _prepare(conf, say)
            say("Spark is starting; the first time it fetches Delta's JARs.")
            _keep_private(conf)
            SparkContext(conf=conf, gateway=SparkContext._gateway or _launched(conf))
        builder = SparkSession.builder
        if submitted and SparkContext._active_spark_context is None:
            conf = SparkConf().setAppName(app_name)
            if not conf.contains(UMASK_PROPERTY):
                _forget_local_files()
            _keep_private(conf)
            _private_blocks(conf)
            _native_folders(conf)
            _local_files(conf, say)
            builder = builder.config(conf=conf)
        session = builder.getOrCreate()
    except (PySparkException, Py4JError, OSError) as error:
        raise _not_started(str(error)) from None
    if _DELTA_EXTENSION not in (session.conf.get("spark.sql.extensions", "") or ""):
        raise SettingsError(
            "Delta Lake is not configured in this Spark session.",
            hint="add --properties-file conf/spark-local.conf (or the one of your cluster) to spark-submit.",
        )
    # Delta's VACUUM prints what it deleted; stdout belongs to the jobs' results.
    jvm: Any = session.sparkContext._jvm
    jvm.java.lang.System.setOut(jvm.java.lang.System.err)
    _need_delta(jvm)
    # Timestamps of records and events mean the same on every driver.
    session.conf.set("spark.sql.session.timeZone", "UTC")
    return session


def _nobody(_: str) -> None:
    """Hear what is said, and do nothing."""


def _prepare(conf: SparkConf, say: Callable[[str], None]) -> None:
    """Set right what the JVM that is about to start would inherit, or say what cannot be."""
    environment.leave_other_sparks(say)
    environment.choose_java(say)
    environment.listen_on_loopback(conf.get("spark.master", ""), say)
    environment.name_files_in_utf_8()
    options = conf.get(_DRIVER_OPTIONS, "")
    if native := environment.native_folders(options):
        conf.set(_DRIVER_OPTIONS, f"{options} {environment.as_options(native)}".strip())
    _local_files(conf, say)


def _native_folders(conf: SparkConf) -> None:
    """As `environment.native_folders`, of the JVM of `spark-submit`, which runs already and has loaded none of them."""
    from pyspark import SparkContext

    system: Any = SparkContext._jvm.java.lang.System  # type: ignore[union-attr]
    options = f"{conf.get(_DRIVER_OPTIONS, '')} -Djava.io.tmpdir={system.getProperty('java.io.tmpdir')}"
    for name, folder in environment.native_folders(options).items():
        if system.getProperty(name) is None:
            system.setProperty(name, folder)


def _local_files(conf: SparkConf, say: Callable[[str], None]) -> None:
    """With Spark on one machine a path without a scheme is on this machine, whatever HADOOP_CONF_DIR says."""
    if not conf.get("spark.master", "").startswith("local") or conf.contains(_FILE_SYSTEM):
        return
    conf.set(_FILE_SYSTEM, "file:///")
    if os.environ.get("HADOOP_CONF_DIR"):
        say("Paths without a scheme are on this machine, also where HADOOP_CONF_DIR has another place for them.")


def check_local(session: SparkSession, place: str) -> None:
    """Make sure that a path without a scheme is to Spark what it is to Python: a folder of this machine.

    Raises:
        SettingsError: Hadoop's settings have them in another file system.
    """
    jsc: Any = session.sparkContext._jsc
    root = str(jsc.hadoopConfiguration().get("fs.defaultFS", "file:///"))
    if "://" not in place and not root.startswith("file:"):
        raise SettingsError(
            f"{place}: a folder of this machine or of {root}? Hadoop's settings (fs.defaultFS) have paths there.",
            hint=f"write it with its scheme: {root.rstrip('/')}/… or file:///…",
        )


def _need_delta(jvm: Any) -> None:
    """Spark itself only warns where the classes that its settings name are not there.

    Raises:
        SettingsError: Delta's JARs are not on the class path.
    """
    from py4j.protocol import Py4JJavaError

    try:
        jvm.java.lang.Thread.currentThread().getContextClassLoader().loadClass(_DELTA_EXTENSION)
    except Py4JJavaError:
        given = " PYSPARK_SUBMIT_ARGS has other --packages." if "--packages" in environment.submit_arguments() else ""
        raise SettingsError(
            f"Delta's JARs are not on Spark's class path.{given}",
            hint="let spark.jars.packages (or --packages) name those of conf/spark-local.conf, beside your own.",
        ) from None


def _keep_private(conf: SparkConf) -> None:
    conf.setIfMissing(UMASK_PROPERTY, UMASK)
    keep_private(conf.get(UMASK_PROPERTY, UMASK))


def _forget_local_files() -> None:
    """spark-submit has opened the local file system before; it would stay as it is, with the umask of then."""
    from pyspark import SparkContext

    jvm: Any = SparkContext._jvm
    jvm.org.apache.hadoop.fs.FileSystem.getLocal(jvm.org.apache.hadoop.conf.Configuration()).close()


def _private_blocks(conf: SparkConf) -> None:
    """Give the JVM of `spark-submit`, which runs already, a folder of its own for what it shuffles and keeps on disk.

    Not where the cluster's manager says where that is.
    """
    from pyspark import SparkContext

    if any(name in os.environ for name in ("SPARK_LOCAL_DIRS", "SPARK_EXECUTOR_DIRS", "LOCAL_DIRS")):
        return
    if roots := conf.get("spark.local.dir", None):
        conf.set("spark.local.dir", _private_roots(roots))
    else:
        # What `spark.local.dir` falls back to. The property itself would travel to the executors.
        jvm: Any = SparkContext._jvm
        jvm.java.lang.System.setProperty("java.io.tmpdir", str(private_folder()))


def _private_roots(roots: str) -> str:
    return ",".join(str(private_folder(root.strip())) for root in roots.split(",") if root.strip())


@contextmanager
def _submission(conf: SparkConf) -> Iterator[None]:
    """How the JVM is told its properties and its place on disk: not by its arguments, which other users can list."""
    given = private_folder() / "spark.properties"
    given.touch(mode=0o600)
    lines = (f"{_escaped(key, '=: ')}={_escaped(value)}\n" for key, value in conf.getAll())
    given.write_text("".join(lines), encoding="utf-8")
    roots = os.environ.get("SPARK_LOCAL_DIRS") or conf.get("spark.local.dir", None)
    asked = environment.submit_arguments()
    changes = {
        "PYSPARK_SUBMIT_ARGS": f"--load-spark-defaults --properties-file {shlex.quote(str(given))} {asked}",
        "SPARK_LOCAL_DIRS": _private_roots(roots) if roots else str(private_folder()),
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        given.unlink()


def _escaped(text: str, also: str = "") -> str:
    """As a Java properties file has it."""
    return re.sub(rf"[\\{also}]|^ ", r"\\\g<0>", text)


def _launched(conf: SparkConf) -> JavaGateway:
    """Start the JVM. What it prints before it is ready (two dozen lines about JARs) is shown only if it never is."""
    from pyspark import java_gateway

    launch: Any = java_gateway.launch_gateway
    ours, theirs = os.pipe()
    held, ready = list[bytes](), threading.Event()

    def pass_on() -> None:
        with os.fdopen(ours, "rb") as lines:
            for line in lines:
                if ready.is_set():
                    os.write(2, line)
                else:
                    held.append(line)

    reader = threading.Thread(target=pass_on, name="the JVM's stderr", daemon=True)
    reader.start()
    try:
        with _submission(conf):
            gateway: JavaGateway = launch(None, {"stderr": theirs})
    except BaseException as error:
        os.close(theirs)
        reader.join(timeout=5)
        said = b"".join(held)
        os.write(2, said)
        if isinstance(error, FaceReindexError) or not isinstance(error, Exception):
            raise
        # What it ended by is only there, and not in PySpark's exception.
        raise _not_started(f"{error}\n{said.decode(errors='replace')}") from None
    os.close(theirs)
    ready.set()
    return gateway


def _not_started(text: str) -> FaceReindexError:
    """Why there is no session, by what Spark says of it."""
    for pattern, kind, message, hint in _STARTS:
        if re.search(pattern, text):
            return kind(message, hint=hint)
    return DependencyUnavailable(
        "Spark did not start.",
        hint="read its own message above, and 'Where a job does not start' in docs/deployment.md.",
    )


def _same_python_for_workers(submitted: bool) -> None:
    """On one machine the workers use the driver's Python; on a cluster its own settings say which."""
    from pyspark import SparkConf

    if "PYSPARK_PYTHON" in os.environ:
        return
    conf = SparkConf() if submitted else None
    if conf is None or (conf.get("spark.master", "").startswith("local") and not conf.contains("spark.pyspark.python")):
        os.environ["PYSPARK_PYTHON"] = sys.executable


def read_properties(path: str | None = None) -> dict[str, str]:
    """Read a Spark properties file as spark-submit does: `key value`, `key=value` or `key: value`, `#` comments.

    Raises:
        SettingsError: the file cannot be read, or a line says no value.
    """
    source = Path(path) if path else packaged_conf("spark-local.conf")
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{source}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{source}: is not UTF-8.", hint="save it as UTF-8.") from None
    properties = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith(("#", "!")):
            continue
        found = _PROPERTY.fullmatch(line)
        # spark-submit would take back-slashes for the start of something else, and this reader would not.
        if found is None or "\\" in line:
            raise SettingsError(
                f"{source}, line {number}: is no property.", hint="write `key value` in one line, without back-slashes."
            )
        properties[found[1]] = found[2]
    return properties


def packaged_conf(name: str) -> Path:
    """Path of a file of conf/, from a checkout or an installed wheel."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "conf", here / "_conf"):
        if (folder / name).is_file():
            return folder / name
    raise SettingsError(f"conf/{name} is not on this machine.", hint="give its path with --properties-file.")
