"""From an order of the server to what a supervisor needs: which fence, which environment, which places."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.agents import containers, environment
from cluster.agents.isolation import CONTAINERS
from cluster.agents.record import Record, Spec
from cluster.models import Device, Work


@dataclass(frozen=True)
class Ways:
    """How this node runs things."""

    isolation: str
    plain: str
    """For work without an image."""
    same_host: bool = False
    devices: Sequence[Device] = ()
    """Its accelerators."""
    most_output: int = 256 << 20
    """Bytes of one command's output that are kept."""

    def kind(self, work: Work) -> str:
        return self.isolation if work.image is not None or self.isolation not in CONTAINERS else self.plain


def specify(work: Work, record: Record, ways: Ways, cores: list[int]) -> Spec:
    """The spec of `work`; `cores` are those that it may use."""
    kind, held = ways.kind(work), _held(work, ways)
    inside = kind in CONTAINERS
    return Spec(
        home=str(record.path),
        session=work.id.session,
        attempt=work.id.attempt,
        rank=work.id.rank,
        command=work.command,
        cwd=work.workdir if work.workdir and ways.same_host else str(record.private),
        env=_env(kind, work, record.path, held, ways.same_host),
        links={name: f"{containers.FOLDERS}/{name}" if inside else path for name, path in work.mounts.items()},
        cores=cores,
        cpu=work.cpu,
        memory=work.memory,
        time_limit=work.time_limit,
        isolation=kind,
        nice=5 if ways.same_host else 0,
        image=work.image,
        folders=work.mounts,
        read_only=work.read_only,
        shown=work.shown,
        hidden=_hidden(record, ways.same_host),
        devices=sorted(work.devices),
        device_files=list(dict.fromkeys(path for d in held for path in d.files)),
        gpus=[d.ident or str(d.index) for d in held if d.kind == "cuda"],
        every_device=any(not d.files for d in held),
        most_output=ways.most_output,
        host_network=len(work.hosts) > 1,
    )


def _env(kind: str, work: Work, home: Path, held: Sequence[Device], inherit: bool) -> dict[str, str]:
    if kind in CONTAINERS:
        return environment.in_container(work, home, held)
    if kind.startswith("bubblewrap"):
        return environment.in_bubblewrap(work, home, held, inherit=inherit)
    return environment.on_the_machine(work, home, held, inherit=inherit)


def _held(work: Work, ways: Ways) -> list[Device]:
    """The accelerators that it holds. One that is gone by now is taken for a GPU, numbered as drivers do."""
    known = {d.index: d for d in ways.devices}
    return [known.get(i) or Device(index=i, model="", ident=str(i)) for i in sorted(work.devices)]


def _hidden(record: Record, same_host: bool) -> list[str]:
    """The agent's data (its token, other people's work), and its own home unless that is the person's."""
    return [str(record.path.parent.parent), *([] if same_host else [str(Path.home())])]
