"""What is special about milvus-lite: one process at a time, and a lock that must be given back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import DependencyUnavailable, FaceReindexError, SettingsError
from jobs.index.loader import MemoryRecorder, load_files
from jobs.index.milvus.connect import connect
from jobs.index.protocol import IndexSpec
from jobs.settings import Settings
from tests.milvus.rows import DIM, INFO, make_keys, make_table, make_vectors, stage_files

pytestmark = pytest.mark.milvus

OPEN = """
import sys
from jobs.index.milvus.connect import connect
from jobs.settings import Settings
index = connect(Settings.model_validate({"milvus": {"uri": sys.argv[1]}}))
print(index.count("faces_r1") if index.exists("faces_r1") else "open")
index.close()
"""


def settings(path: Path) -> Settings:
    return Settings.model_validate({"milvus": {"uri": str(path)}})


def in_another_process(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, timeout=120, check=False
    )


def test_one_process_at_a_time_and_the_lock_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "faces.db"
    index = connect(settings(path))
    try:
        second = in_another_process(path)
        assert second.returncode == 1
        assert "DependencyUnavailable" in second.stderr
        assert "another process has it open" in second.stderr
    finally:
        index.close()
    third = in_another_process(path)
    assert (third.returncode, third.stdout.strip()) == (0, "open"), third.stderr
    # And nothing of pymilvus' own error log, which holds whole requests.
    assert "RPC error" not in second.stderr + third.stderr
    index = connect(settings(path))
    index.close()


def test_what_was_written_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "faces.db"
    index = connect(settings(path))
    files = stage_files(tmp_path / "staged", make_keys(700), make_vectors(700), 3)
    index.create("faces_r1", dim=DIM, shards=4, properties=INFO)
    assert not index.features.bulk_import
    recorder = MemoryRecorder()
    assert load_files(index, "faces_r1", files, settings(path), recorder=recorder).rows == 700
    assert load_files(index, "faces_r1", files, settings(path), recorder=recorder).skipped == 3
    index.build_index("faces_r1", IndexSpec("FLAT"), timeout=60)
    index.load("faces_r1", timeout=60)
    index.switch_alias("faces", "faces_r1")
    index.close()
    assert in_another_process(path).stdout.strip() == "700"
    index = connect(settings(path))
    assert index.alias_target("faces") == "faces_r1"
    assert index.info("faces_r1") == INFO
    index.close()


@pytest.mark.parametrize("at", ["insert", "load", "switch_alias", "drop"])
@pytest.mark.parametrize("opened_anew", [True, False])
def test_guarantee_12_a_compaction_that_was_cut_off_is_ended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, opened_anew: bool
) -> None:
    """By an error, in the same process, or by a kill."""

    class Cut(BaseException): ...

    def cut(*_: object, **__: object) -> None:
        raise Cut

    keys = make_keys(60)
    index = connect(settings(tmp_path / "faces.db"))
    try:
        index.create("faces_r1", dim=DIM, shards=1, properties=INFO)
        index.insert("faces_r1", make_table(keys, make_vectors(60)))
        index.build_index("faces_r1", IndexSpec("FLAT"), timeout=60)
        index.load("faces_r1", timeout=60)
        index.switch_alias("faces", "faces_r1")
        index.delete("faces_r1", keys[:10])
        with monkeypatch.context() as patched:
            patched.setattr(index, at, cut)
            with pytest.raises(Cut):
                index.compact("faces_r1", timeout=60)
        if opened_anew:
            index.close()
            index = connect(settings(tmp_path / "faces.db"))
            index.load("faces_r1", timeout=60)
        assert index.compact("faces_r1", timeout=60)
        assert index.list_collections() == ["faces_r1"]
        assert index.alias_target("faces") == "faces_r1"
        assert np.concatenate(list(index.keys("faces_r1"))).tolist() == sorted(keys[10:].tolist())
    finally:
        index.close()


KILLED = """
import os, shutil, sys
from pathlib import Path
import milvus_lite.db
from jobs.index.milvus.connect import connect
from jobs.settings import Settings
index = connect(Settings.model_validate({"milvus": {"uri": sys.argv[1]}}))

def killed(where, *others, **named):
    if sys.argv[3] == "rename":
        rename(where, *others)
    else:
        first = sorted(path for path in Path(where).rglob("*") if path.is_file())
        for path in (path for path in first if (path.name == "schema.json") == (sys.argv[3] == "schema")):
            path.unlink()
    os._exit(9)

rename, at = os.rename, sys.argv[3]
if at == "rename":
    # That which takes a collection's place, and not those of its files.
    milvus_lite.db.os = type("os", (), {**vars(os), "rename": staticmethod(
        lambda a, b: killed(a, b) if Path(a).name.endswith("__compacted") else rename(a, b))})
else:
    milvus_lite.db.shutil.rmtree = killed
index.load("faces_r1", timeout=60)
index.compact("faces_r1", timeout=60) if sys.argv[2] == "compact" else index.drop("faces_r1")
"""


@pytest.mark.parametrize(
    ("call", "at"),
    [("compact", "schema"), ("compact", "data"), ("compact", "rename"), ("drop", "schema"), ("drop", "data")],
)
def test_guarantee_12_killed_while_files_go_nothing_is_left_of_them(tmp_path: Path, call: str, at: str) -> None:
    """Whichever of a collection's files the database removes first: one of them says that it is there."""
    keys, vectors, path = make_keys(60), make_vectors(60), tmp_path / "faces.db"
    index = connect(settings(path))
    index.create("faces_r1", dim=DIM, shards=1, properties=INFO)
    index.insert("faces_r1", make_table(keys, vectors))
    index.build_index("faces_r1", IndexSpec("FLAT"), timeout=60)
    index.load("faces_r1", timeout=60)
    if call == "compact":
        index.switch_alias("faces", "faces_r1")
    index.delete("faces_r1", keys[:10])
    index.flush("faces_r1", timeout=60)
    index.close()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), call, at], capture_output=True, text=True, timeout=120, check=False
    )
    assert killed.returncode == 9, killed.stderr
    index = connect(settings(path))
    try:
        if call == "compact":
            assert (index.list_collections(), index.alias_target("faces")) == (["faces_r1"], "faces_r1")
            index.load("faces_r1", timeout=60)
            assert np.concatenate(list(index.keys("faces_r1"))).tolist() == sorted(keys[10:].tolist())
            assert index.compact("faces_r1", timeout=60)
            gone = vectors[3].tobytes()
        else:
            assert index.list_collections() == []
            gone = vectors[30].tobytes()
            index.create("faces_r1", dim=DIM, shards=1, properties=INFO)
    finally:
        index.close()
    assert not [file for file in path.rglob("*") if file.is_file() and gone in file.read_bytes()]


def test_a_path_that_cannot_be_an_embedded_index_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"ends in \.db"):
        connect(settings(tmp_path / "faces"))


def test_a_folder_that_is_no_index_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "faces.db").write_text("not a folder")
    with pytest.raises(DependencyUnavailable, match="cannot be opened"):
        connect(settings(tmp_path / "faces.db"))


def test_bulk_import_is_refused_where_there_is_none(tmp_path: Path) -> None:
    index = connect(settings(tmp_path / "faces.db"))
    try:
        with pytest.raises(FaceReindexError, match="no bulk import"):
            index.start_import("x", ["y"])
        by_import = Settings.model_validate({"milvus": {"uri": str(tmp_path / "faces.db"), "load_by": "import"}})
        with pytest.raises(SettingsError, match="no bulk import"):
            load_files(index, "x", [], by_import, recorder=MemoryRecorder())
    finally:
        index.close()


BESIDE = """
import os, sys
from jobs.index.milvus.connect import connect
from jobs.settings import Settings
index = connect(Settings.model_validate({"milvus": {"uri": sys.argv[1]}}))
print(index.list_collections(), os.environ["http_proxy"])
index.close()
"""


def test_a_proxy_and_an_address_in_the_environment_are_not_in_its_way(tmp_path: Path) -> None:
    """gRPC would go to loopback over the proxy; pymilvus would end over the address while it is imported."""
    proxy = "http://192.0.2.1:3128"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"), proxy)
    others = {"NO_PROXY": "corp.example", "MILVUS_URI": "no address", "MILVUS_CONN_TIMEOUT": "soon"}
    done = subprocess.run(
        [sys.executable, "-c", BESIDE, str(tmp_path / "faces.db")],
        env={**os.environ, **proxies, **others}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    # The proxy is still there for whom it is meant.
    assert (done.returncode, done.stdout.strip()) == (0, f"[] {proxy}"), done.stderr
