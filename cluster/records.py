"""From the ledger's and the database's rows to the door's shapes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from cluster.db.tables import FolderRow
from cluster.live import LiveNode, LiveSession, Rank
from cluster.models import Allocation, Device, Folder, Node, Reason, Resources, Session, SessionState

IDLE_BELOW = 0.05
TRASH_DAYS = 7


def session(row: LiveSession, reasons: Sequence[Reason] | None = None) -> Session:
    """With `reasons` instead of those that it ended with."""
    return Session(
        id=row.id,
        name=row.name,
        user=row.user,
        project=row.project,
        type=row.type,
        image=row.image,
        command=row.command,
        state=row.state,
        result=row.result,
        resources=Resources(cpu=row.cpu, memory=row.memory, gpu=row.gpu),
        node_count=row.node_count,
        gpu_model=row.gpu_model,
        resource_group=row.resource_group,
        priority=row.priority,
        mounts=row.mounts,
        env=row.env,
        depends_on=row.depends_on,
        start_at=row.start_at,
        time_limit=row.time_limit,
        submitted=row.submitted,
        started=row.started,
        ended=row.ended,
        exit_code=row.exit_code,
        allocations=[
            Allocation(node=a.node, rank=a.rank, cpu=a.cpu, memory=a.memory, devices=a.devices) for a in row.ranks
        ],
        reasons=[Reason.model_validate(r) for r in row.reasons] if reasons is None else list(reasons),
        gpu_utilization=row.utilization if row.gpu else None,
        idle=idle(row),
    )


def idle(row: LiveSession) -> bool:
    """Running and using next to nothing of what it holds."""
    return row.state == SessionState.RUNNING and row.utilization is not None and row.utilization < IDLE_BELOW


def node(row: LiveNode, held: Sequence[Rank], names: Sequence[str]) -> Node:
    """`held`: the ranks that hold something there; `names`: the sessions to be shown."""
    shares = _shares(held)
    devices = [Device.model_validate({**d, "used": round(shares[d["index"]], 6)}) for d in row.devices]
    return Node(
        name=row.name,
        resource_group=row.resource_group,
        status=row.status,
        reason=row.reason,
        capacity=Resources(cpu=row.cpu, memory=row.memory, gpu=len(devices)),
        free=Resources(
            cpu=row.cpu - sum(a.cpu for a in held),
            memory=row.memory - sum(a.memory for a in held),
            gpu=round(sum(1 - d.used for d in devices), 6),
        ),
        gpu_model=row.gpu_model,
        devices=devices,
        rack=row.rack,
        isolation=row.isolation,
        sessions=list(names),
        cpu_utilization=row.sample.get("cpu_utilization"),
        memory_utilization=row.sample.get("memory_utilization"),
        temperature=row.sample.get("temperature"),
        power=row.sample.get("power"),
        last_beat=row.last_beat,
    )


def folder(row: FolderRow) -> Folder:
    purge = row.trashed_at + timedelta(days=TRASH_DAYS) if row.trashed_at else None
    return Folder(
        name=row.name,
        project=row.project,
        owner=row.owner,
        size=row.size,
        quota=row.quota,
        trashed=row.trash_id is not None,
        trashed_at=row.trashed_at,
        purge_at=purge,
        created=row.created,
        modified=row.modified,
    )


def _shares(held: Iterable[Rank]) -> Mapping[int, float]:
    shares: defaultdict[int, float] = defaultdict(float)
    for rank in held:
        for index, share in rank.devices.items():
            shares[index] += share
    return shares
