"""What was read about Milvus servers, as data: each fact with its versions, its source, and how sure it is.

Read in public copies of the server's repository, at the commits of `REFS`. A version between two of them is taken to
be as the one before it, unless the history of the file says in which release a change came: then that is the bound.
2.6.24 and 3.0.2 are newer than any copy; what is said of them alone comes from documentation and from threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from jobs.index.protocol import parse_version

Known = Literal["read", "documented", "reported", "unconfirmed"]
Any_ = TypeVar("Any_", bound=Callable[..., Any])


class Ref(NamedTuple):
    """A commit of a public repository."""

    repository: str
    commit: str
    note: str = ""


REFS: dict[str, Ref] = {
    "2.3": Ref("milvus-io/milvus", "18df2ba6fd51b59aeefc903f5c6dd8741ba2cc5e", "main branch, before 2.4"),
    "2.4.13": Ref("zhuwenxing/milvus", "dfe27ebf358a29cb9479c22717104e962bd75029", "branch 2.4, before 2.4.13-hotfix"),
    "2.5": Ref("bigsheeper/milvus", "c8e90858d5e3ed45ae6916c7e6b5fe109dac4e49", "branch 2.5, at 2.5.27"),
    "2.6.0": Ref("bigsheeper/milvus", "288c69e924d1722d19aee527d28589c6fbaef930", "where 2.6.0 was named"),
    "2.6.2": Ref("bigsheeper/milvus", "febfeca5ff", "where 2.6.2 was named"),
    "2.6.3": Ref("bigsheeper/milvus", "778da323bd", "where 2.6.3 was named"),
    "2.6.6": Ref("bigsheeper/milvus", "1a37f6d56b", "where 2.6.6 was named"),
    "2.6.7": Ref("bigsheeper/milvus", "2029551c9633f8a5ca9b9474ef14f111e2954fbd", "where 2.6.7 was named"),
    "2.6.20": Ref("bigsheeper/milvus", "526e04504a89900213a00c225f9fc3500fee7407", "branch cp-2.6-51511, after 2.6.20"),
    "3.0.0": Ref("bigsheeper/milvus", "6298d2ff68f288c47b0783dbca7c10c7422eba32", "where 3.0.0 was named"),
    "3.0.0+": Ref("bigsheeper/milvus", "6280be64fb6752d37ad70a2a7914e34208c8175f", "branch cp-3.0-52046, after 3.0.0"),
    "knowhere": Ref("zilliztech/knowhere", "9000afa89e", "2.5.14; and 2.3.11, 2.6.0, 2.6.6, 2.6.17, 3.0.6"),
    "proto": Ref("milvus-io/milvus-proto", "9810b924186fcb778799ea5f1165b81b4e47217a", "and its branches 2.4 to 3.0"),
    "pymilvus": Ref("milvus-io/pymilvus", "cf0bc76ccfeedfcd9a71cce831537507d8a444686"[:10], "and 3.0.2 as installed"),
}
SERVERS = ("2.4.13", "2.5", "2.6.0", "2.6.7", "2.6.20", "3.0.0+")

V2 = "internal/distributed/proxy/httpserver/handler_v2.go"
REQUESTS = "internal/distributed/proxy/httpserver/request_v2.go"
TIMEOUTS = "internal/distributed/proxy/httpserver/timeout_middleware.go"
SERVICE = "internal/distributed/proxy/service.go"
LISTENER = "internal/distributed/proxy/listener_manager.go"
PRIVILEGES = "internal/proxy/privilege_interceptor.go"
PROXY_IMPORT = "internal/proxy/impl.go (2.4, 2.5), internal/proxy/task_import.go"
DATACOORD = "internal/datacoord/services.go"
IMPORT_UTIL = "internal/datacoord/import_util.go"
TASKS = "internal/rootcoord/import_manager.go"
CHECKER = "internal/datacoord/import_checker.go"
CALLBACKS = "internal/datacoord/ddl_callbacks_import.go"
PARQUET = "internal/util/importutilv2/parquet/util.go"
FIELD_READER = "internal/util/importutilv2/parquet/field_reader.go"
L0_POLICY = "internal/datacoord/compaction_policy_l0.go"
TRIGGER = "internal/datacoord/compaction_trigger.go"
PARAMETERS = "pkg/util/paramtable/component_param.go"
ERRORS = "pkg/util/merr/errors.go"
KEY_PAGE = "https://milvus.io/docs/idempotent-import.md"
KEY_THREAD = "https://github.com/milvus-io/milvus/pull/52320"
KEY_REVIEW = "https://github.com/milvus-io/milvus/pull/52544"
PATH_THREAD = "https://github.com/milvus-io/milvus/pull/51894"

Range = tuple[str, str]
ALWAYS: tuple[Range, ...] = (("2.4.13", ""),)
KEYED: tuple[Range, ...] = (("2.6.24", "3.0.0"), ("3.0.2", ""))
BY_TASKS: tuple[Range, ...] = (("2.3.0", "2.4.0"),)


@dataclass(frozen=True)
class Fact:
    """One thing that servers do.

    ``versions``: ranges of versions, the first in and the last (empty: none) out. ``source``: a file of the server's
    repository, or an address; ``names``: functions or settings there; ``refs``: where it was looked up (`REFS`).
    """

    name: str
    says: str
    source: str
    names: str
    versions: tuple[Range, ...] = ALWAYS
    refs: tuple[str, ...] = SERVERS
    known: Known = "read"

    @property
    def span(self) -> str:
        """Its versions in words."""
        return ", ".join(f"{since} to before {until}" if until else f"from {since}" for since, until in self.versions)

    def holds(self, version: str) -> bool:
        """Whether it holds for a version."""
        number = parse_version(version)
        return any(
            parse_version(since) <= number and (not until or number < parse_version(until))
            for since, until in self.versions
        )


SECTIONS: dict[str, tuple[Fact, ...]] = {
    "Requests": (
        Fact(
            "database-by-header",
            "`get_progress`, `describe`, `commit` and `abort` take the database from the header `DB-Name` alone "
            "(without it: `default`); a `dbName` in their body is ignored",
            f"{REQUESTS}, {V2}",
            "JobIDReq, wrapperPost",
        ),
        Fact(
            "database-by-body",
            "`create` and `list` take the database from `dbName` in the body, else from the header, else `default`",
            f"{REQUESTS}, {V2}",
            "ImportReq, OptionalCollectionNameReq, wrapperPost",
        ),
        Fact(
            "unknown-database-first",
            "Every import call is refused with code 800 where its database does not exist",
            V2,
            "wrapperCheckDatabase",
            (("2.4.13", "2.5.0"),),
            ("2.4.13",),
        ),
        Fact(
            "string-values",
            "`files` is a list of lists of strings, `options` has string values, `jobId` is a string: otherwise HTTP "
            "200 with code 1801; a field that is missing: 1802",
            f"{REQUESTS}, {V2}",
            "ImportReq, JobIDReq, wrapperPost",
        ),
        Fact("describe", "`describe` is there beside `get_progress`, and answers the same", V2, "RegisterRoutesToV2"),
        Fact(
            "unknown-route",
            "A path without a route is HTTP 404 with text, no JSON (`commit` and `abort` before 3.0)",
            V2,
            "RegisterRoutesToV2",
        ),
    ),
    "Answers": (
        Fact("unauthenticated", "No or wrong credentials: HTTP 401, code 1800", SERVICE, "authenticate"),
        Fact(
            "forbidden", "A missing privilege: HTTP 403, code 65535", V2, "checkAuthorizationV2, checkImportPrivilege"
        ),
        Fact(
            "timeout-as-text",
            "After 30 s: HTTP 408 with the text `timeout`, while the work goes on",
            TIMEOUTS,
            "timeoutMiddleware",
            (("2.4.13", "2.5.0"),),
            ("2.4.13",),
        ),
        Fact(
            "timeout-as-json",
            "After 30 s (`proxy.http.requestTimeoutMs`): HTTP 408, code 10001 in JSON; the work may go on",
            TIMEOUTS,
            "timeoutMiddleware",
            (("2.5.0", ""),),
            SERVERS[1:],
        ),
        Fact(
            "timeout-by-header",
            "The header `Request-Timeout`, in whole seconds, takes the place of the 30 s",
            TIMEOUTS,
            "timeoutMiddleware",
        ),
        Fact("errors-in-200", "Every other error is HTTP 200 with `code` and `message`", V2, "wrapperProxyWithLimit"),
        Fact(
            "not-now",
            "Codes 1 (not ready), 2 (unavailable) and 8 (rate limit) are marked as retriable",
            ERRORS,
            "ErrServiceNotReady, ErrServiceUnavailable, ErrServiceRateLimit",
        ),
    ),
    "Jobs": (
        Fact(
            "details-after-preimport",
            "`details`, which alone name files, and row counts come from tasks that exist only after pre-import: a "
            "young job has none",
            IMPORT_UTIL,
            "GetTaskProgresses, getImportRowsInfo",
        ),
        Fact(
            "file-name-in-brackets",
            "`fileName` is the list of an entry's paths as Go prints it: `[path]`",
            IMPORT_UTIL,
            "GetTaskProgresses",
        ),
        Fact(
            "list-without-files",
            "`list` says of a job its id, collection, state, progress and reason; no files",
            V2,
            "listImportJob",
        ),
        Fact(
            "progress-by-stage",
            "Progress: Pending to 10, pre-import to 40, import to 70, sorting and indexes to 99, Completed 100, "
            "Failed 0",
            IMPORT_UTIL,
            "GetJobProgress",
        ),
        Fact(
            "forgotten-after-3h",
            "A job is forgotten 10,800 s after it ended (`dataCoord.import.taskRetention`)",
            f"{CHECKER}, {PARAMETERS}",
            "checkGC, ImportTaskRetention",
            (("2.4.13", "2.6.24"), ("3.0.0", "3.0.2")),
        ),
        Fact(
            "forgotten-after-24h",
            "The retention's default is 24 hours, so that a job outlives its key; a setting of an older file stays at "
            "3",
            KEY_REVIEW,
            "review of dataCoord.import.taskRetention",
            KEYED,
            (),
            "reported",
        ),
        Fact(
            "unknown-job-2100",
            "A job that is not known (any more): HTTP 200 with code 2100, `import job does not exist`",
            DATACOORD,
            "GetImportProgress",
            (("2.4.13", "2.6.19"),),
            ("2.4.13", "2.5", "2.6.0", "2.6.7"),
        ),
        Fact(
            "unknown-job-2101",
            "A job that is not known (any more): HTTP 200 with code 2101 (commit 39c9b039d2 of branch 2.6, two days "
            "before 2.6.19 was named)",
            DATACOORD,
            "GetImportProgress",
            (("2.6.19", ""),),
            ("2.6.20", "3.0.0+"),
        ),
        Fact(
            "deadline-by-option",
            "`options.timeout`, a Go duration as `90m`, fails a job with the reason `import timeout`; nothing renews "
            "it. One that cannot be parsed is refused with code 2100",
            f"{DATACOORD} (2.4), internal/util/importutilv2/option.go, {CHECKER}",
            "ImportV2, GetTimeoutTs, tryTimeoutJob",
        ),
        Fact(
            "deadline-fails-completed",
            "The deadline also fails a job that is *Completed* and not yet forgotten, and a failed job's segments are "
            "dropped: its rows go, hours later (mended by commit 20592fb236 of branch 2.6, before 2.6.7; not in "
            "2.5.27)",
            f"{CHECKER}, internal/datacoord/import_scheduler.go (import_inspector.go)",
            "tryTimeoutJob, tryFailingTasks, processFailed",
            (("2.4.13", "2.6.7"),),
            ("2.4.13", "2.5", "2.6.0", "2.6.6", "2.6.7"),
        ),
        Fact(
            "jobs-of-a-dropped-collection",
            "When a collection is dropped its jobs that run become Failed",
            CHECKER,
            "checkCollection",
        ),
        Fact("files-a-request", "More than 1,024 files a request: code 2100", PROXY_IMPORT, "MaxFilesPerImportReq"),
        Fact("no-files", "A request without files: code 1100", PROXY_IMPORT, "ImportV2, PreExecute"),
        Fact(
            "file-types",
            "An ending that is not known, or two Parquet paths in one entry: code 2100",
            "internal/util/importutilv2/util.go",
            "GetFileType",
        ),
        Fact(
            "jobs-at-once",
            "1,024 jobs that have not ended (`dataCoord.import.maxImportJobNum`): a further one is refused with code "
            "2100, from 2.6.19 on with 2101",
            f"{DATACOORD} (2.5), {IMPORT_UTIL}",
            "ImportV2, ValidateMaxImportJobExceed",
            (("2.5.0", ""),),
            SERVERS[1:],
        ),
        Fact(
            "file-bytes",
            "A file of more than 16 GiB fails its job at pre-import",
            "internal/datanode/importv2/task_preimport.go",
            "readFileStat",
        ),
        Fact(
            "paths-as-given",
            "A path is the object's key in the server's bucket, or an absolute path of local storage, as given: "
            "neither scheme nor bucket nor root path is added or taken away; one that is not there fails the job",
            "internal/storage/local_chunk_manager.go; https://github.com/milvus-io/milvus/issues/51883",
            "LocalChunkManager.Reader",
        ),
        Fact(
            "paths-confined",
            "Files under the server's own folders, and relative paths of local storage, are refused. Merged to the "
            "main branch; for 2.6 still open (#53681) when 2.6.24 was out; whether 3.0.2 has it, and its code, was "
            "not found",
            PATH_THREAD,
            "ValidateImportFilePaths",
            (("3.0.2", ""),),
            (),
            "unconfirmed",
        ),
    ),
    "Parquet": (
        Fact(
            "parquet-types",
            "Each field has a column of a type that converts without loss of range: int64 from int64 or smaller, a "
            "vector from a list of floats or of smaller integers; otherwise the job fails at pre-import",
            PARQUET,
            "isSchemaEqual, isArrowDataTypeConvertible",
        ),
        Fact("parquet-length", "A vector of another length fails the job", PARQUET, "checkVectorAligned"),
        Fact(
            "parquet-extra-refused",
            "A column that is no field fails the job",
            PARQUET,
            "CreateFieldReaders",
            (("2.4.13", "2.6.0"),),
            ("2.4.13", "2.5"),
        ),
        Fact(
            "parquet-extra-ignored",
            "A column that is no field is ignored",
            PARQUET,
            "CreateFieldReaders",
            (("2.6.0", ""),),
            SERVERS[2:],
        ),
        Fact(
            "parquet-fixed-refused",
            "A list of fixed size is refused for a vector",
            PARQUET,
            "isArrowDataTypeConvertible",
            (("2.4.13", "2.6.17"),),
            ("2.4.13", "2.5", "2.6.0", "2.6.7"),
        ),
        Fact(
            "parquet-fixed-taken",
            "A list of fixed size is taken for a vector (commit ab427b8b6c of branch 2.6, after 2.6.16 was named)",
            PARQUET,
            "isFixedSizeListImportTarget",
            (("2.6.17", ""),),
            ("2.6.20", "3.0.0+"),
        ),
    ),
    "Vectors of 16 bits": (
        Fact(
            "half-stored",
            "A field's vectors may be of float16 or bfloat16, beside float32; numbers are two bytes, the lower first",
            "pkg/util/typeutil/schema.go, pkg/util/typeutil/float_util.go",
            "IsDenseFloatVectorType, VerifyFloats16, VerifyBFloats16",
        ),
        Fact(
            "half-parquet-bytes",
            "Such a vector is read from a column of bytes, one value a row, or of lists of uint8, twice as many as "
            "dimensions",
            f"{PARQUET}, {FIELD_READER}",
            "convertToArrowDataType, isArrowDataTypeConvertible, ReadBinaryData",
        ),
        Fact(
            "half-parquet-length",
            "A list of another length fails the job; of a value of bytes the length is not looked at: rows are taken "
            "one behind the other",
            FIELD_READER,
            "ReadBinaryData, checkVectorAligned",
        ),
        Fact(
            "half-parquet-floats-refused",
            "Lists of floats for such a vector fail the job at pre-import",
            PARQUET,
            "isArrowDataTypeConvertible",
            (("2.4.13", "3.0.0"),),
            SERVERS[:-1],
        ),
        Fact(
            "half-parquet-floats-taken",
            "Lists of floats for such a vector are rounded to it (commit 7933eb229b)",
            f"{PARQUET}, {FIELD_READER}",
            "isArrowDataTypeConvertible, ReadFP16BF16FloatVectorData",
            (("3.0.0", ""),),
            ("3.0.0", "3.0.0+"),
        ),
        Fact(
            "half-insert-floats-refused",
            "An insert brings such vectors as bytes; floats are refused with code 1100",
            "internal/proxy/validate_util.go",
            "checkFloat16VectorFieldData, checkBFloat16VectorFieldData",
            (("2.4.13", "3.0.0"),),
            SERVERS[:-1],
        ),
        Fact(
            "half-insert-floats-taken",
            "An insert of floats into such a field is rounded (commit 7933eb229b)",
            "internal/proxy/task_insert.go, internal/proxy/task_upsert.go, internal/proxy/vector_type_convert.go",
            "PreExecute",
            (("3.0.0", ""),),
            ("3.0.0", "3.0.0+"),
        ),
        Fact(
            "half-insert-finite",
            "An insert of NaN or infinity in such a vector is refused with code 1100",
            "internal/proxy/validate_util.go, pkg/util/typeutil/float_util.go",
            "withNANCheck, VerifyFloats16, VerifyBFloats16",
        ),
        Fact(
            "half-search-refused",
            "A search for float32 in such a field is refused: `vector type must be the same`",
            "internal/core/src/query/Plan.cpp",
            "ParsePlaceholderGroup",
            (("2.4.13", "2.6.10"),),
            SERVERS[:4],
        ),
        Fact(
            "half-search-converted",
            "A search for float32 in such a field is rounded by the proxy (commit e330eee4c4 of branch 2.6, two days "
            "before 2.6.10 was named)",
            "internal/proxy/vector_type_convert.go",
            "ConvertPlaceholderGroup",
            (("2.6.10", ""),),
            ("2.6.20", "3.0.0", "3.0.0+"),
        ),
        Fact(
            "cagra-of-float32",
            "GPU_CAGRA over float16 is refused: Knowhere 2.3.11 has no code for it",
            "internal/proxy/task_index.go; src/index/gpu_raft/gpu_raft_cagra.cc of Knowhere",
            "checkTrain, KNOWHERE_REGISTER_GLOBAL_WITH_THREAD_POOL(GPU_CAGRA, …)",
            (("2.4.13", "2.5.0"),),
            ("2.4.13", "knowhere"),
        ),
        Fact(
            "cagra-without-bfloat16",
            "GPU_CAGRA over bfloat16 is refused; every other type of index here takes all three",
            "internal/proxy/task_index.go; src/index/gpu_cuvs/gpu_cuvs_cagra.cc of Knowhere",
            "checkTrain, KNOWHERE_REGISTER_GLOBAL_WITH_THREAD_POOL(GPU_CAGRA, …)",
            ALWAYS,
            (*SERVERS, "knowhere"),
        ),
        Fact(
            "half-index-sizes",
            "HNSW, DISKANN and GPU_CAGRA keep such numbers as two bytes; lists (IVF_FLAT, IVF_SQ8, IVF_PQ, SCANN) are "
            "made by the code for float32 over a copy, and IVF_FLAT and SCANN keep float32",
            "src/index/ivf/ivf.cc, src/index/hnsw/faiss_hnsw.cc (2.3.11: hnsw.cc), src/index/diskann/diskann.cc of "
            "Knowhere",
            "KNOWHERE_MOCK_REGISTER_…, KNOWHERE_SIMPLE_REGISTER_…",
            ALWAYS,
            ("knowhere",),
        ),
    ),
    "Two phases, keys, replication": (
        Fact(
            "two-phases",
            "With `options.auto_commit` = `false` a job stays Uncommitted, and its rows invisible, until `commit`. "
            "Without it these states are never shown",
            f"{IMPORT_UTIL}, internal/util/importutilv2/option.go",
            "GetJobProgress, IsAutoCommit",
            (("3.0.0", ""),),
            ("3.0.0", "3.0.0+"),
        ),
        Fact(
            "commit-conditions",
            "`commit` of a job that is neither Uncommitted nor committed: code 2100; of one that is not known: 2101; "
            "repeated: no error",
            DATACOORD,
            "CommitImport, validateAndExecuteImportAction",
            (("3.0.0", ""),),
            ("3.0.0", "3.0.0+"),
        ),
        Fact(
            "abort-conditions",
            "`abort` of a job that is committed or completed, or that commits by itself: code 2100; of one that is "
            "not known: 2101; of any other, also while it runs: Failed, `aborted by user`; repeated: no error",
            DATACOORD,
            "AbortImport, validateAndExecuteImportAction",
            (("3.0.0", ""),),
            ("3.0.0", "3.0.0+"),
        ),
        Fact(
            "key-header",
            "The header `Idempotency-Key` makes a repeated `create` the same job; older servers ignore it",
            KEY_PAGE,
            "Sending the key",
            KEYED,
            (),
            "documented",
        ),
        Fact(
            "key-form",
            "A key is printable ASCII of at most 256 bytes",
            KEY_THREAD,
            "closing comment",
            KEYED,
            (),
            "reported",
        ),
        Fact("key-scope", "A key holds for its collection", KEY_THREAD, "closing comment", KEYED, (), "reported"),
        Fact(
            "key-for-24h",
            "A key is remembered for about 24 hours; much traffic can shorten that",
            KEY_THREAD,
            "closing comment",
            KEYED,
            (),
            "reported",
        ),
        Fact(
            "key-not-payload",
            "What is in the two requests is not compared",
            KEY_REVIEW,
            "review: request equivalence",
            KEYED,
            (),
            "reported",
        ),
        Fact(
            "key-of-a-failed-job",
            "A key whose job failed answers that job, as if it had just been made",
            KEY_REVIEW,
            "review of ImportV2, the branch of a duplicate",
            KEYED,
            (),
            "reported",
        ),
        Fact(
            "key-of-a-forgotten-job",
            "A key whose job is forgotten is refused; with which code was not found",
            KEY_REVIEW,
            "review of ImportV2, the branch of a duplicate",
            KEYED,
            (),
            "unconfirmed",
        ),
        Fact(
            "no-import-under-replication",
            "In a cluster that replicates (CDC) an import is refused with code 3000",
            CALLBACKS,
            "validateImportRequest, validateImportReplication",
            (("2.6.20", ""),),
            ("2.6.20", "3.0.0+"),
        ),
        Fact(
            "no-auto-commit-under-replication",
            "Where `dataCoord.import.enableInReplicatingCluster` permits it, one that commits by itself is still "
            "refused",
            CALLBACKS,
            "validateImportReplication",
            (("3.0.0", ""),),
            ("3.0.0", "3.0.0+"),
        ),
    ),
    "Access": (
        Fact(
            "tls-own-port",
            "With TLS no HTTP on gRPC's port: REST has a port of its own, else the proxy does not start",
            LISTENER,
            "newHTTPListner",
        ),
        Fact(
            "grants-by-database",
            "A grant is of a database, or of `*`; a request is judged in the database that it names",
            f"{PRIVILEGES}, pkg/util/funcutil/policy.go",
            "PrivilegeInterceptor, PolicyForResource",
        ),
        Fact(
            "grants-told-by-database",
            "A role's grants are told of one database: the one that the request names, else the connection's",
            "internal/metastore/kv/rootcoord/kv_catalog.go, internal/proxy/database_interceptor.go",
            "ListGrant, fillDatabase",
        ),
        Fact(
            "create-privilege",
            "`create` needs Import on the collection",
            "proto/milvus.proto of milvus-proto",
            "ImportAuthPlaceholder",
            ALWAYS,
            ("proto",),
        ),
        Fact(
            "describe-any-collection",
            "`describe` needs Import on every collection (`*`), `list` on the one that it names",
            "proto/milvus.proto of milvus-proto, branches 2.4 and 2.5",
            "GetImportProgressAuthPlaceholder, ListImportsAuthPlaceholder",
            (("2.4.13", "2.6.0"),),
            ("proto", "2.4.13", "2.5"),
        ),
        Fact(
            "describe-global",
            "`describe` needs the global privilege GetImportProgress, `list` the global ListImport; Import is not "
            "enough",
            f"proto/milvus.proto of milvus-proto, branch 2.6; {V2}",
            "GetImportProgressAuthPlaceholder, ListImportsAuthPlaceholder",
            (("2.6.0", "2.6.7"),),
            ("proto", "2.6.0", "2.6.6"),
        ),
        Fact(
            "describe-ungrantable",
            "These two are listed as privileges of collections: granting them as global ones is refused, so no role "
            "has them but one with all privileges",
            "pkg/util/constant.go, internal/rootcoord/root_coord.go",
            "ObjectPrivileges, isValidPrivilege",
            (("2.6.0", "2.6.7"),),
            ("2.6.0", "2.6.6"),
        ),
        Fact(
            "describe-own-collection",
            "`describe` needs Import on the job's collection in the database of the header; `list` leaves out, "
            "without a word, the jobs of collections for which Import is missing (commit 607c9ef40c of branch 2.6)",
            V2,
            "getImportJobProcess, listImportJob",
            (("2.6.7", ""),),
            ("2.6.7", "2.6.20", "3.0.0+"),
        ),
    ),
    "Deletes, compactions, indexes": (
        Fact(
            "deletes-in-l0",
            "What is deleted goes to L0 segments, by a flush; rows stay where they are",
            "internal/datanode/writebuffer (2.4), internal/flushcommon/writebuffer/l0_write_buffer.go",
            "BufferData",
        ),
        Fact(
            "manual-leaves-l0",
            "A compaction by hand leaves L0 and L2 segments out: it rewrites the others without new deletes",
            TRIGGER,
            "triggerManualCompaction…, getCandidates",
        ),
        Fact(
            "compaction-by-id",
            "A compaction by hand is of the collection whose id the request has; without one, as pymilvus asks, "
            "of all collections (the name is looked at from 2.4.18 on)",
            "internal/proxy/impl.go, internal/datacoord/compaction_trigger.go",
            "ManualCompaction, handleGlobalSignal",
            (("2.4.13", "2.4.18"),),
            ("2.4.13", "2.5"),
        ),
        Fact(
            "l0-by-hand",
            "`l0Compaction` in a request compacts L0 segments; older servers do not know the field and compact as "
            "usual",
            DATACOORD,
            "ManualCompaction",
            (("2.6.3", ""),),
            ("2.6.2", "2.6.3", "2.6.7", "2.6.20", "3.0.0+"),
        ),
        Fact(
            "l0-behind-growing",
            "An L0 segment that is younger than the oldest growing segment is left alone, also by hand: flush first "
            "(no longer so by commit 417357e8db of branch 2.6, before 2.6.8)",
            "internal/datacoord/compaction_l0_view.go",
            "earliestGrowingSegmentPos, ForceTrigger",
            (("2.4.13", "2.6.8"),),
            ("2.4.13", "2.5", "2.6.0", "2.6.7", "2.6.20"),
        ),
        Fact(
            "l0-when-idle",
            "An L0 segment is compacted by itself about 30 s after the last delete (3 looks, 10 s apart)",
            L0_POLICY,
            "Trigger, activeCollections.Read",
        ),
        Fact(
            "rewritten-by-share",
            "A segment is rewritten by itself when 20 % of its rows are deleted",
            f"{TRIGGER}, {PARAMETERS}",
            "isDeleteRowsTooManySegment (hasTooManyDeletions), SingleCompactionRatioThreshold",
        ),
        Fact(
            "no-plan-no-job",
            "A compaction without a plan answers the id -1 and 0 plans",
            DATACOORD,
            "ManualCompaction",
        ),
        Fact(
            "completed-whatever",
            "`Completed` is: no plan runs. Also with plans that failed or timed out, or with none",
            "internal/datacoord/compaction.go (2.4), compaction_inspector.go",
            "summaryCompactionState",
        ),
        Fact(
            "plans-counted",
            "A compaction's state counts its plans: executing, completed, timed out, failed",
            DATACOORD,
            "GetCompactionState",
        ),
        Fact(
            "segments-with-level",
            "Persistent segments are told with their level; dropped ones are not told",
            "internal/proxy/impl.go",
            "GetPersistentSegmentInfo",
        ),
        Fact(
            "flush-rate",
            "A collection is flushed at most 0.1 times a second; above it: code 8",
            "pkg/util/paramtable/quota_param.go, internal/proxy/rate_limit_interceptor.go",
            "RateLimitInterceptor",
        ),
        Fact(
            "cagra-without-cosine",
            "GPU_CAGRA takes L2 and IP only",
            "pkg/util/indexparamcheck/cagra_checker.go",
            "CheckTrain, RaftMetrics",
            (("2.4.13", "2.5.0"),),
            ("2.4.13",),
        ),
    ),
    "Import tasks before 2.4": (
        Fact(
            "tasks",
            "An import over gRPC is a task of one file, which it names from the beginning; its state is Pending, "
            "Started, Persisted, Completed or Failed; one that is not known is code 1000, `key not found` (also run)",
            TASKS,
            "importJob, copyTaskInfo, getTaskState",
            BY_TASKS,
            ("2.3",),
        ),
        Fact(
            "rows-before-completed",
            "Rows of a task are made visible, segment by segment, and only then is it Completed: one that is cut off "
            "in between stays as it is, or is Failed after a restart, with all of its rows or some to be seen",
            TASKS,
            "flipTaskFlushedState, loadFromTaskStore",
            BY_TASKS,
            ("2.3",),
        ),
        Fact(
            "failed-tasks-cleaned",
            "What a failed task has brought is dropped at a look every five minutes",
            TASKS,
            "cleanupLoop, removeBadImportSegments",
            BY_TASKS,
            ("2.3",),
        ),
        Fact(
            "tasks-forgotten",
            "A task is forgotten a day after it was made (`rootCoord.importTaskRetention`)",
            TASKS,
            "expireOldTasksFromEtcd, taskPastRetention",
            BY_TASKS,
            ("2.3",),
        ),
    ),
    "The client": (
        Fact(
            "client-certificate",
            "pymilvus offers a client certificate only where CA, certificate and key are all set",
            "pymilvus/client/grpc_handler.py",
            "_setup_grpc_channel, _create_grpc_channel",
            ALWAYS,
            ("pymilvus",),
        ),
        Fact(
            "flush-asked-again",
            "pymilvus repeats what is refused with code 8, until its time-out",
            "pymilvus/decorators.py",
            "retry_on_rpc_failure",
            ALWAYS,
            ("pymilvus",),
        ),
    ),
}

FACTS: dict[str, Fact] = {fact.name: fact for section in SECTIONS.values() for fact in section}


def shows(*names: str) -> Callable[[Any_], Any_]:
    """Mark a test as one that shows these facts on the double (known from source, not run)."""
    unknown = [name for name in names if name not in FACTS]
    if unknown:
        raise KeyError(f"no such fact: {', '.join(unknown)}")
    return lambda test: test
