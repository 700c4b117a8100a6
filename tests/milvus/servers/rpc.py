# ruff: noqa: N802, ARG002 -- the methods have the stubs' names, and one signature
"""The gRPC interface by pymilvus's own stubs: as much of it as `jobs.index` calls."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped]  # it ships no types
import numpy as np
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from tests.milvus.servers.core import Core
from tests.milvus.servers.faults import CUT, IGNORED, LOST, TWICE
from tests.milvus.servers.imports import Job
from tests.milvus.servers.profiles import Profile
from tests.milvus.servers.rights import ANY, Grant
from tests.milvus.servers.store import (
    L0,
    NUMBERS,
    Collection,
    Columns,
    Refused,
    as_floats,
    as_numbers,
    dim_of,
    matching,
)

_METHODS = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name
_LEVELS = {"L0": common_pb2.SegmentLevel.L0, "L1": common_pb2.SegmentLevel.L1}
_INT64 = schema_pb2.DataType.Int64
_SEGCORE = 2000
# The field of a message in which vectors of a type travel: numbers, or the bytes of all rows.
_VECTORS = {
    schema_pb2.DataType.FloatVector: "float_vector",
    schema_pb2.DataType.Float16Vector: "float16_vector",
    schema_pb2.DataType.BFloat16Vector: "bfloat16_vector",
}
_COUNT = "count(*)"
_TASK_STATES = {
    "Pending": common_pb2.ImportPending,
    "PreImporting": common_pb2.ImportStarted,
    "Importing": common_pb2.ImportStarted,
    "IndexBuilding": common_pb2.ImportPersisted,
    "Completed": common_pb2.ImportCompleted,
    "Failed": common_pb2.ImportFailed,
}
# How often a method is carried out, where it is not once.
_TIMES = {CUT: 0, IGNORED: 0, TWICE: 2}
# Old clients read `error_code`; pymilvus takes some of these words as well.
_OLD_CODES = {8: common_pb2.RateLimit, 100: common_pb2.CollectionNotExists}


class Need(NamedTuple):
    """The privilege that a request needs, as its message's own option tells."""

    kind: str
    privilege: str
    names: tuple[str, ...]


def need_of(request: Any) -> Need | None:
    """Kind, privilege and the objects' names; None: nothing is needed."""
    options = request.DESCRIPTOR.GetOptions()
    if not options.HasExtension(common_pb2.privilege_ext_obj):
        return None
    told = options.Extensions[common_pb2.privilege_ext_obj]
    kind = common_pb2.ObjectType.Name(told.object_type)
    privilege = common_pb2.ObjectPrivilege.Name(told.object_privilege).removeprefix("Privilege")
    fields = request.DESCRIPTOR.fields_by_number
    if told.object_name_indexs > 0:
        return Need(kind, privilege, tuple(getattr(request, fields[told.object_name_indexs].name)))
    name = getattr(request, fields[told.object_name_index].name) if told.object_name_index > 0 else ANY
    return Need(kind, privilege, (name,))


def _guarded(core: Core, name: str, method: Callable[[Any, str], Any]) -> Callable[[Any, Any], Any]:
    """A method with what comes before it: who asks, in which database, and whether he may."""

    def behaviour(request: Any, context: Any) -> Any:
        metadata, answer = dict(context.invocation_metadata()), _class_of(_METHODS[name].output_type)()
        database = getattr(request, "db_name", "") or metadata.get("dbname", "") or "default"
        try:
            with core.lock:
                word = core.begin(name)
                user = core.rights.user_of(base64.b64decode(metadata.get("authorization", "")).decode())
                if need := need_of(request):
                    for each in need.names:
                        core.rights.require(user, need.kind, need.privilege, each, database)
                for _ in range(_TIMES.get(word, 1)):
                    answer = method(request, database)
        except Refused as refused:
            if refused.http == 401:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, f"auth check failure: {refused.message}")
            if refused.http == 403:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, refused.message.partition("desc = ")[2])
            return _refusal(name, refused)
        except Exception as error:
            # pymilvus would ask again for ever: a fault of the double has to be seen.
            return _refusal(name, Refused(65535, f"the double fails at {name}: {error!r}"))
        if word in (LOST, CUT):
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return answer

    return behaviour


def _class_of(message: Any) -> Any:
    return getattr(milvus_pb2 if hasattr(milvus_pb2, message.name) else common_pb2, message.name)


def _refusal(method: str, refused: Refused) -> Any:
    answer = _class_of(_METHODS[method].output_type)()
    status = answer if isinstance(answer, common_pb2.Status) else answer.status
    status.code, status.reason = refused.code, refused.message
    status.error_code = _OLD_CODES.get(refused.code, common_pb2.UnexpectedError)
    return answer


class _Service:
    """The methods: a request and its database to an answer, under the core's lock and for a caller who may call it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = core.store

    def _at(self, request: Any, database: str) -> Collection:
        return self._store.get(database, request.collection_name)

    # -- the server ------------------------------------------------------------------------------------------------

    def Connect(self, request: Any, database: str) -> Any:
        info = common_pb2.ServerInfo(build_tags=f"v{self._core.profile.version}")
        return milvus_pb2.ConnectResponse(server_info=info, identifier=1)

    def GetVersion(self, request: Any, database: str) -> Any:
        return milvus_pb2.GetVersionResponse(version=f"v{self._core.profile.version}")

    def CheckHealth(self, request: Any, database: str) -> Any:
        return milvus_pb2.CheckHealthResponse(isHealthy=True)

    def CreateDatabase(self, request: Any, database: str) -> Any:
        self._store.databases.add(request.db_name)
        return common_pb2.Status()

    def ListDatabases(self, request: Any, database: str) -> Any:
        return milvus_pb2.ListDatabasesResponse(db_names=sorted(self._store.databases))

    # -- collections -----------------------------------------------------------------------------------------------

    def CreateCollection(self, request: Any, database: str) -> Any:
        schema = schema_pb2.CollectionSchema.FromString(request.schema)
        properties = {p.key: p.value for p in request.properties}
        self._store.create(database, request.collection_name, schema, properties, request.shards_num)
        return common_pb2.Status()

    def DropCollection(self, request: Any, database: str) -> Any:
        self._store.drop(database, request.collection_name)
        return common_pb2.Status()

    def HasCollection(self, request: Any, database: str) -> Any:
        self._at(request, database)
        return milvus_pb2.BoolResponse(value=True)

    def DescribeCollection(self, request: Any, database: str) -> Any:
        there = self._at(request, database)
        return milvus_pb2.DescribeCollectionResponse(
            schema=there.schema,
            collectionID=there.number,
            collection_name=there.name,
            db_name=there.database,
            shards_num=there.shards,
            created_timestamp=int(there.made * 1000) << 18,
            consistency_level=common_pb2.ConsistencyLevel.Strong,
            properties=_pairs(there.properties),
            aliases=self._aliases(there),
        )

    def ShowCollections(self, request: Any, database: str) -> Any:
        names = sorted(there.name for there in self._store.all(database))
        return milvus_pb2.ShowCollectionsResponse(collection_names=names)

    # -- aliases ---------------------------------------------------------------------------------------------------

    def _aliases(self, there: Collection) -> list[str]:
        aliases = self._store.aliases.items()
        return sorted(a for (place, a), target in aliases if (place, target) == (there.database, there.name))

    def CreateAlias(self, request: Any, database: str) -> Any:
        self._store.aliases[database, request.alias] = self._at(request, database).name
        return common_pb2.Status()

    AlterAlias = CreateAlias

    def DropAlias(self, request: Any, database: str) -> Any:
        self._store.aliases.pop((database, request.alias), None)
        return common_pb2.Status()

    def DescribeAlias(self, request: Any, database: str) -> Any:
        target = self._store.aliases.get((database, request.alias))
        if target is None:
            raise Refused(1600, f"alias not found[alias={request.alias}]")
        return milvus_pb2.DescribeAliasResponse(alias=request.alias, collection=target)

    def ListAliases(self, request: Any, database: str) -> Any:
        return milvus_pb2.ListAliasesResponse(aliases=self._aliases(self._at(request, database)))

    # -- indexes and memory ----------------------------------------------------------------------------------------

    def CreateIndex(self, request: Any, database: str) -> Any:
        params = {p.key: p.value for p in request.extra_params}
        on_gpu = params.get("index_type") == "GPU_CAGRA" and params.get("metric_type") == "COSINE"
        if on_gpu and self._core.profile.has("cagra-without-cosine"):
            raise Refused(1100, "metric type not found or not supported, supported: [L2 IP]: invalid parameter")
        there = self._at(request, database)
        self._check_type(there, request.field_name, params.get("index_type", ""))
        there.indexes[request.field_name] = params | {"index_name": request.index_name}
        return common_pb2.Status()

    def _check_type(self, there: Collection, field: str, index_type: str) -> None:
        """Refuse an index over a type of vectors for which there is no code."""
        about = next(about for about in there.schema.fields if about.name == field)
        half, bfloat = schema_pb2.DataType.Float16Vector, schema_pb2.DataType.BFloat16Vector
        without = {half: "cagra-of-float32", bfloat: "cagra-without-bfloat16"}.get(about.data_type)
        if index_type == "GPU_CAGRA" and without and self._core.profile.has(without):
            kind = schema_pb2.DataType.Name(about.data_type)
            raise Refused(1100, f"data type {kind} can't build with this index {index_type}: invalid parameter")

    def DescribeIndex(self, request: Any, database: str) -> Any:
        there = self._at(request, database)
        rows = len(there.seen()[there.key])
        found = [
            milvus_pb2.IndexDescription(
                index_name=params["index_name"],
                field_name=field,
                params=_pairs({k: v for k, v in params.items() if k != "index_name"}),
                total_rows=rows,
                indexed_rows=rows,
                state=common_pb2.IndexState.Finished,
            )
            for field, params in there.indexes.items()
            if request.index_name in ("", params["index_name"])
        ]
        if not found:
            raise Refused(700, "index not found")
        return milvus_pb2.DescribeIndexResponse(index_descriptions=found)

    def LoadCollection(self, request: Any, database: str) -> Any:
        there = self._at(request, database)
        if not any(dim_of(about) and about.name in there.indexes for about in there.schema.fields):
            raise Refused(700, "there is no vector index on collection, please create index firstly: index not found")
        there.loaded = True
        return common_pb2.Status()

    def ReleaseCollection(self, request: Any, database: str) -> Any:
        self._at(request, database).loaded = False
        return common_pb2.Status()

    def GetLoadState(self, request: Any, database: str) -> Any:
        loaded = self._at(request, database).loaded
        state = common_pb2.LoadState.LoadStateLoaded if loaded else common_pb2.LoadState.LoadStateNotLoad
        return milvus_pb2.GetLoadStateResponse(state=state)

    def GetLoadingProgress(self, request: Any, database: str) -> Any:
        return milvus_pb2.GetLoadingProgressResponse(progress=100 if self._at(request, database).loaded else 0)

    # -- rows --------------------------------------------------------------------------------------------------------

    def Insert(self, request: Any, database: str) -> Any:
        there = self._at(request, database)
        columns = self._columns(there, request)
        self._store.write(there, columns)
        ids = schema_pb2.IDs(int_id=schema_pb2.LongArray(data=columns[there.key].tolist()))
        return milvus_pb2.MutationResult(IDs=ids, insert_cnt=request.num_rows, upsert_cnt=request.num_rows)

    def Upsert(self, request: Any, database: str) -> Any:
        there = self._at(request, database)
        self._store.delete(there, self._columns(there, request)[there.key])
        return self.Insert(request, database)

    def _columns(self, there: Collection, request: Any) -> dict[str, np.ndarray]:
        fields = {about.name: about for about in there.schema.fields}
        return {
            data.field_name: _values(data, fields[data.field_name], self._core.profile) for data in request.fields_data
        }

    def Delete(self, request: Any, database: str) -> Any:
        there = self._at(request, database)
        seen = there.seen()
        gone = np.unique(seen[there.key][matching(request.expr, seen)])
        if len(gone):
            self._store.delete(there, gone)
        return milvus_pb2.MutationResult(delete_cnt=len(gone))

    def Query(self, request: Any, database: str) -> Any:
        there = self._loaded(request, database)
        seen = there.seen()
        rows = np.flatnonzero(matching(request.expr, seen))
        if list(request.output_fields) == [_COUNT]:
            count = schema_pb2.FieldData(type=_INT64, field_name=_COUNT)
            count.scalars.long_data.data.append(len(rows))
            return milvus_pb2.QueryResults(fields_data=[count])
        limit = next((int(p.value) for p in request.query_params if p.key == "limit"), None)
        if not request.expr and limit is None:
            raise Refused(1100, "empty expression should be used with limit: invalid parameter")
        found = [_field(name, seen[name][rows[:limit]]) for name in request.output_fields]
        return milvus_pb2.QueryResults(fields_data=found, primary_field_name=there.key)

    def Search(self, request: Any, database: str) -> Any:
        there = self._loaded(request, database)
        params = {p.key: p.value for p in request.search_params}
        seen, k = self._found(there), int(params["topk"])
        about = next(about for about in there.schema.fields if dim_of(about))
        group = common_pb2.PlaceholderGroup.FromString(request.placeholder_group)
        asked = as_floats(_asked(group.placeholders[0], about, self._core.profile))
        vectors = as_floats(seen[about.name])
        lengths = np.linalg.norm(asked, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)[None]
        scores = asked @ vectors.T / np.maximum(lengths, 1e-30)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        results = schema_pb2.SearchResultData(
            num_queries=len(asked),
            top_k=k,
            topks=[best.shape[1]] * len(asked),
            scores=np.take_along_axis(scores, best, 1).ravel().tolist(),
            ids=schema_pb2.IDs(int_id=schema_pb2.LongArray(data=seen[there.key][best].ravel().tolist())),
            fields_data=[_field(name, seen[name][best].ravel()) for name in request.output_fields],
            output_fields=list(request.output_fields),
            primary_field_name=there.key,
        )
        return milvus_pb2.SearchResults(results=results, collection_name=there.name)

    def _found(self, there: Collection) -> Columns:
        """The rows that searches find."""
        seen, missed = there.seen(), self._core.misses_every
        if not missed:
            return seen
        return {name: column[np.arange(len(column)) % missed != 0] for name, column in seen.items()}

    def _loaded(self, request: Any, database: str) -> Collection:
        there = self._at(request, database)
        if not there.loaded:
            raise Refused(101, f"collection not loaded[collection={there.number}]")
        return there

    # -- import tasks, up to 2.3 ---------------------------------------------------------------------------------------

    def Import(self, request: Any, database: str) -> Any:
        self._require_tasks()
        if len(request.files) > 1:
            raise Refused(65535, "for JSON or parquet file, each task only accepts one file")
        task = self._core.imports.create(self._at(request, database), [[path] for path in request.files], {}, "")
        return milvus_pb2.ImportResponse(tasks=[task])

    def GetImportState(self, request: Any, database: str) -> Any:
        self._require_tasks()
        if request.task not in self._core.imports.jobs:
            raise Refused(1000, f"key not found[key=by-dev/meta/importtask/{request.task}]")
        return self._task(self._core.imports.jobs[request.task])

    def ListImportTasks(self, request: Any, database: str) -> Any:
        self._require_tasks()
        there = self._at(request, database) if request.collection_name else None
        jobs = [job for job in self._core.imports.jobs.values() if there in (None, job.there)]
        return milvus_pb2.ListImportTasksResponse(tasks=[self._task(job) for job in jobs])

    def _require_tasks(self) -> None:
        if not self._core.profile.has("tasks"):
            raise NotImplementedError("imports of this version are REST jobs")

    def _task(self, job: Job) -> Any:
        percent, rows = self._core.imports.progress(job)
        infos = {"files": job.files[0][0], "collection": job.there.name, "partition": "", "failed_reason": job.reason}
        return milvus_pb2.GetImportStateResponse(
            id=job.number,
            collection_id=job.there.number,
            state=_TASK_STATES[job.state],
            row_count=rows,
            infos=_pairs(infos | {"progress_percent": str(percent)}),
        )

    # -- segments ----------------------------------------------------------------------------------------------------

    def Flush(self, request: Any, database: str) -> Any:
        answer = milvus_pb2.FlushResponse()
        for name in request.collection_names:
            numbers = self._core.flush(self._store.get(database, name))
            answer.coll_segIDs[name].data.extend(numbers)
            answer.coll_flush_ts[name] = 1
        return answer

    def GetFlushState(self, request: Any, database: str) -> Any:
        return milvus_pb2.GetFlushStateResponse(flushed=True)

    def GetPersistentSegmentInfo(self, request: Any, database: str) -> Any:
        there = self._store.get(database, request.collectionName)
        infos = [
            milvus_pb2.PersistentSegmentInfo(
                segmentID=segment.number,
                collectionID=there.number,
                num_rows=0 if segment.level == L0 else segment.rows,
                state=common_pb2.SegmentState.Flushed,
                level=_LEVELS[segment.level],
            )
            for segment in there.segments
            if segment.flushed
        ]
        return milvus_pb2.GetPersistentSegmentInfoResponse(infos=infos)

    def ManualCompaction(self, request: Any, database: str) -> Any:
        if self._core.profile.has("compaction-by-id"):
            collections = [c for c in self._store.all() if request.collectionID in (0, c.number)]
        else:
            collections = [self._store.get(database, request.collection_name)]
        job, plans = self._core.compactions.start(collections, l0=request.l0Compaction, now=self._core.clock.now())
        return milvus_pb2.ManualCompactionResponse(compactionID=job, compactionPlanCount=plans)

    def GetCompactionState(self, request: Any, database: str) -> Any:
        counts = {
            s: self._core.compactions.count(request.compactionID, s) for s in ("executing", "completed", "failed")
        }
        runs = counts["executing"] > 0
        return milvus_pb2.GetCompactionStateResponse(
            state=common_pb2.CompactionState.Executing if runs else common_pb2.CompactionState.Completed,
            executingPlanNo=counts["executing"],
            completedPlanNo=counts["completed"],
            failedPlanNo=counts["failed"],
        )

    # -- roles -------------------------------------------------------------------------------------------------------

    def CreateCredential(self, request: Any, database: str) -> Any:
        self._core.rights.users[request.username] = base64.b64decode(request.password).decode()
        return common_pb2.Status()

    def CreateRole(self, request: Any, database: str) -> Any:
        self._core.rights.roles.setdefault(request.entity.name, set())
        return common_pb2.Status()

    def SelectRole(self, request: Any, database: str) -> Any:
        names = [n for n in self._core.rights.roles if request.role.name in ("", n)]
        results = [milvus_pb2.RoleResult(role=milvus_pb2.RoleEntity(name=name)) for name in names]
        return milvus_pb2.SelectRoleResponse(results=results)

    def OperateUserRole(self, request: Any, database: str) -> Any:
        self._core.rights.members.setdefault(request.username, set()).add(request.role_name)
        return common_pb2.Status()

    def OperatePrivilege(self, request: Any, database: str) -> Any:
        entity = request.entity
        privilege = entity.grantor.privilege.name
        ungrantable = entity.object.name == "Global" and privilege in ("GetImportProgress", "ListImport")
        if ungrantable and self._core.profile.has("describe-ungrantable"):
            raise Refused(65535, f"not found the privilege name[{privilege}] in object[Global]")
        grant = Grant(entity.object.name, privilege, entity.object_name, entity.db_name or database)
        self._core.rights.roles[entity.role.name].add(grant)
        return common_pb2.Status()

    def SelectGrant(self, request: Any, database: str) -> Any:
        entity = request.entity
        asked = entity.db_name or database
        entities = [
            milvus_pb2.GrantEntity(
                role=milvus_pb2.RoleEntity(name=entity.role.name),
                object=milvus_pb2.ObjectEntity(name=grant.kind),
                object_name=grant.name,
                db_name=grant.database,
                grantor=milvus_pb2.GrantorEntity(privilege=milvus_pb2.PrivilegeEntity(name=grant.privilege)),
            )
            for grant in sorted(self._core.rights.roles.get(entity.role.name, ()))
            if ANY in (asked, grant.database) or grant.database == asked
        ]
        return milvus_pb2.SelectGrantResponse(entities=entities)


def _pairs(values: dict[str, str]) -> list[Any]:
    return [
        common_pb2.KeyValuePair(key=key, value=value if isinstance(value, str) else json.dumps(value))
        for key, value in values.items()
    ]


def _values(data: Any, about: Any, profile: Profile) -> np.ndarray:
    """A field's values in a request, in the field's type."""
    if not dim_of(about):
        return np.array(data.scalars.long_data.data, np.int64)
    wanted, there, dim = _VECTORS[about.data_type], data.vectors.WhichOneof("data"), dim_of(about)
    if there == "float_vector" and (wanted == there or profile.has("half-insert-floats-taken")):
        return as_numbers(np.array(data.vectors.float_vector.data, np.float32).reshape(-1, dim), about)
    if there != wanted:
        raise Refused(1100, f"{wanted} field '{about.name}' is illegal, expected need {wanted} array, got nil")
    found = np.frombuffer(getattr(data.vectors, wanted), NUMBERS[about.data_type])
    if found.size % dim or not np.isfinite(as_floats(found)).all():
        raise Refused(1100, f"{wanted} contain nan or infinity value, or its length is not aligned: invalid parameter")
    return found.reshape(-1, dim)


def _asked(placeholder: Any, about: Any, profile: Profile) -> np.ndarray:
    """The vectors that are searched for, in the field's type."""
    dim, floats = dim_of(about), common_pb2.PlaceholderType.FloatVector
    # Both enumerations have the same numbers.
    if placeholder.type == floats and about.data_type != floats and profile.has("half-search-converted"):
        found = np.stack([np.frombuffer(each, np.float32) for each in placeholder.values])
        return as_numbers(found, about)
    if placeholder.type != about.data_type:
        raise Refused(_SEGCORE, f"vector type must be the same, field {about.name}: segcore error")
    numbers = NUMBERS[about.data_type]
    if {len(each) for each in placeholder.values} != {dim * numbers.itemsize}:
        raise Refused(_SEGCORE, "vector dimension mismatch: segcore error")
    return np.stack([np.frombuffer(each, numbers) for each in placeholder.values])


def _field(name: str, values: np.ndarray) -> Any:
    """A field's values for an answer."""
    kind = next((kind for kind, numbers in NUMBERS.items() if numbers == values.dtype), _INT64)
    data = schema_pb2.FieldData(type=kind, field_name=name)
    if kind == _INT64:
        data.scalars.long_data.data.extend(values.tolist())
        return data
    data.vectors.dim = values.shape[1]
    if kind == schema_pb2.DataType.FloatVector:
        data.vectors.float_vector.data.extend(values.ravel().tolist())
    else:
        setattr(data.vectors, _VECTORS[kind], values.tobytes())
    return data


def add_service(server: Any, core: Core) -> None:
    """Serve a core's gRPC interface; a method that is not here is unimplemented."""
    service = _Service(core)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _guarded(core, name, getattr(service, name)),
            _class_of(_METHODS[name].input_type).FromString,
            lambda answer: answer.SerializeToString(),
        )
        for name in vars(_Service)
        if name in _METHODS
    }
    service_name = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, handlers),))
