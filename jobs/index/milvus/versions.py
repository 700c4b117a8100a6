"""What Milvus servers do, release by release, and where in their source it was read.

Everything from 2.4 on was read and not run: in the server's public source at 2.4.23, 2.5.27, 2.6.20 and 3.0.0, whose
history also says with which release a change came, in milvus-proto, and in Milvus's documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from jobs.index.protocol import EMBEDDED, NUMBER_BYTES, Features, VectorType, parse_version

Release = tuple[int, int, int]
Span = tuple[Release, Release | None]

MAX_FILES_PER_REQUEST: Final = 1024
_BETA: Final = re.compile(r"-(alpha|beta|rc|dev)")


@dataclass(frozen=True)
class Rule:
    """One thing that servers of some releases do.

    ``spans``: from a release to one before another (None: to the newest). ``source``: release, file and function, or
    page, where it was read.
    """

    says: str
    spans: tuple[Span, ...]
    source: str

    def holds(self, number: Release) -> bool:
        """Whether a server of this release does it."""
        return any(since <= number and (until is None or number < until) for since, until in self.spans)


REST_IMPORT: Final = Rule(
    "imports are REST jobs of many files",
    (((2, 4, 0), None),),
    "2.4.23 internal/distributed/proxy/httpserver/handler_v2.go RegisterRoutesToV2; files a request: "
    "2.5.27 pkg/util/paramtable/component_param.go MaxFilesPerImportReq",
)
DESCRIBE: Final = Rule(
    "`describe` tells of a job; `get_progress`, which says the same, is there in all",
    (((2, 4, 13), None),),
    "2.4.13 internal/distributed/proxy/httpserver/handler_v2.go RegisterRoutesToV2 (commit 7ee46c582e)",
)
LEVEL_ZERO: Final = Rule(
    "deletes go to segments of level 0, which a manual compaction leaves out",
    (((2, 4, 0), None),),
    "2.4.23, 2.5.27, 2.6.20 internal/datacoord/compaction_trigger.go getCandidates; "
    "when they are applied by themselves: compaction_policy_l0.go activeCollections.Read",
)
COMPACT_LEVEL_ZERO: Final = Rule(
    "a compaction of level 0 can be asked for",
    (((2, 6, 3), None),),
    "2.6.3 internal/datacoord/services.go ManualCompaction, GetL0Compaction (commit 1b7562a766)",
)
KEYED_IMPORT: Final = Rule(
    "a repeated `create` with the same Idempotency-Key answers the same job",
    (((2, 6, 24), (3, 0, 0)), ((3, 0, 2), None)),
    "https://milvus.io/docs/idempotent-import.md (milvus #52544): its collection's alone, for about 24 hours, at most "
    "256 printable ASCII bytes; files are not compared",
)
TWO_PHASE_IMPORT: Final = Rule(
    "a job can stay invisible until it is committed, and can be aborted before",
    (((3, 0, 0), None),),
    "3.0.0 internal/datacoord/services.go CommitImport, AbortImport; internal/util/importutilv2/option.go IsAutoCommit",
)
UNGRANTABLE_IMPORT: Final = Rule(
    "describe and list of imports ask for global privileges that no role can be given",
    (((2, 6, 0), (2, 6, 7)),),
    "milvus-proto 2.6 GetImportProgressAuthPlaceholder, ListImportsAuthPlaceholder (Global); 2.6.20 "
    "pkg/util/constant.go ObjectPrivileges (Collection); mended by 2.6.7 handler_v2.go checkAuthorizationHelper",
)
CAGRA_WITHOUT_COSINE: Final = Rule(
    "GPU_CAGRA takes the metrics L2 and IP alone",
    (((2, 4, 0), (2, 5, 0)),),
    "2.4.23 pkg/util/indexparamcheck/cagra_checker.go CheckTrain, constraints.go RaftMetrics",
)
HALF_VECTORS: Final = Rule(
    "vectors of float16 and bfloat16 are stored, and Parquet files bring them as bytes",
    (((2, 4, 1), None),),
    "2.4.13 internal/util/importutilv2/parquet/field_reader.go ReadBinaryData; Milvus's release notes: bulk insert of "
    "these since 2.4.1 (#32157)",
)
CAGRA_OF_FLOAT32: Final = Rule(
    "GPU_CAGRA takes vectors of float32 alone",
    (((2, 4, 0), (2, 5, 0)),),
    "Knowhere 2.3.11 src/index/gpu_raft/gpu_raft_cagra.cc; 2.4.13 internal/proxy/task_index.go checkTrain",
)
CAGRA_WITHOUT_BFLOAT16: Final = Rule(
    "GPU_CAGRA takes no vectors of bfloat16",
    (((2, 4, 0), None),),
    "Knowhere 2.5.14, 2.6.17, 3.0.6 src/index/gpu_cuvs/gpu_cuvs_cagra.cc; 2.5.27 internal/proxy/task_index.go "
    "checkTrain",
)


def detect(version: str) -> Features:
    """What a server of this version can do. Up to 2.3: one file a job over gRPC, STL_SORT for integers (measured)."""
    if "lite" in version.lower() and not version.lstrip("v").startswith("2."):
        return replace(EMBEDDED, version=version)  # `milvus-lite server`
    number = parse_version(version)
    if not REST_IMPORT.holds(number):
        return Features(version, bulk_import=True, files_per_job=1, scalar_index="STL_SORT", shows_failed_imports=True)
    return Features(
        version,
        bulk_import=True,
        files_per_job=MAX_FILES_PER_REQUEST,
        idempotent_import=KEYED_IMPORT.holds(number),
        # Its betas had the calls, and did not ask who makes them (milvus #50691).
        two_phase_import=TWO_PHASE_IMPORT.holds(number) and not _BETA.search(version),
        level_zero=LEVEL_ZERO.holds(number),
        compacts_level_zero=COMPACT_LEVEL_ZERO.holds(number),
        refused_indexes=frozenset({"GPU_CAGRA"}) if CAGRA_WITHOUT_COSINE.holds(number) else frozenset(),
        vector_types=frozenset(NUMBER_BYTES) if HALF_VECTORS.holds(number) else frozenset({"float32"}),
        unindexed=_unindexed(number),
    )


def _unindexed(number: Release) -> frozenset[tuple[str, VectorType]]:
    rules: dict[VectorType, Rule] = {"float16": CAGRA_OF_FLOAT32, "bfloat16": CAGRA_WITHOUT_BFLOAT16}
    return frozenset(("GPU_CAGRA", vector_type) for vector_type, rule in rules.items() if rule.holds(number))
