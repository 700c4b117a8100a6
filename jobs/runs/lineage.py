"""OpenLineage events of a run: what it read and wrote, for which purposes and under which policy. Off by default.

Where the events go is the client's own configuration (openlineage.yml, or OPENLINEAGE_URL and its relatives in the
environment). An event that cannot be delivered does not end a run: the audit trail is the record, this is a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from jobs.errors import SettingsError

if TYPE_CHECKING:
    from datetime import datetime

    from jobs.settings import Settings

_NAMESPACE = UUID("6f2b7c1e-6a2e-4c8e-9c52-4f0f2d6e3a10")
_PRODUCER = "https://pypi.org/project/face-reindex/"
_STATES = {"running": "START", "done": "COMPLETE", "failed": "FAIL"}
_WRITTEN = ("image_status", "embeddings")


def emit(
    settings: Settings, job: str, run_id: str, state: str, *, now: datetime, inputs: Mapping[str, int], policy: str
) -> None:
    """Send one event, if `governance.openlineage` says so.

    Raises:
        SettingsError: the client is not installed.
    """
    if not settings.governance.openlineage:
        return
    try:
        from openlineage.client import OpenLineageClient
    except ImportError:
        raise SettingsError(
            "governance.openlineage needs the client.", hint="pip install 'face-reindex[lineage]'."
        ) from None
    try:
        OpenLineageClient().emit(_event(settings, job, run_id, state, now, inputs, policy))
    except Exception as error:
        import sys

        print(f"openlineage: the event was not delivered ({type(error).__name__}).", file=sys.stderr)  # noqa: T201


def _event(
    settings: Settings, job: str, run_id: str, state: str, now: datetime, inputs: Mapping[str, int], policy: str
) -> Any:
    import attr
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import RunFacet

    @attr.define
    class PurposeRunFacet(RunFacet):
        purposes: list[str]
        allowed_purposes: list[str]

    @attr.define
    class PolicyRunFacet(RunFacet):
        policy_digest: str
        settings_digest: str

    governance = settings.governance
    facets = {
        "faceReindex_purpose": PurposeRunFacet(list(governance.purposes), list(governance.allowed_purposes)),
        "faceReindex_policy": PolicyRunFacet(policy, settings.digest()),
    }
    place = settings.warehouse
    outputs = [OutputDataset(place, name) for name in _WRITTEN]
    outputs.append(OutputDataset(settings.milvus.uri, settings.milvus.alias))
    return RunEvent(
        eventType=getattr(RunState, _STATES[state]),
        eventTime=now.isoformat(),
        run=Run(str(uuid5(_NAMESPACE, f"{place}/{run_id}")), facets),
        job=Job("face-reindex", job),
        producer=_PRODUCER,
        inputs=[InputDataset(place, name) for name in sorted(inputs)],
        outputs=outputs,
    )
