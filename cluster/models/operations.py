"""What can be done (every W and D): POST /v1/operations, its outcome, and the journal."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from cluster.models.base import Model, Reason, Resources
from cluster.models.endpoints import DeleteEndpoint, DeployModel, ScaleEndpoint, SetAutoscaling
from cluster.models.nodes import CordonNode, DrainNode, MoveNode, SetSchedulingPolicy, UncordonNode
from cluster.models.people import (
    AddProjectMember,
    CreateProject,
    CreateToken,
    CreateUser,
    DeactivateUser,
    LinkUser,
    ReactivateUser,
    RegisterImage,
    RemoveProjectMember,
    RevokeToken,
    SetQuota,
    TokenMade,
)
from cluster.models.pipelines import (
    CancelPipelineRun,
    DeletePipeline,
    PutPipeline,
    ResumePipelineRun,
    RunPipeline,
)
from cluster.models.sessions import RestartSession, Session, SetSessionPriority, StartSession, TerminateSessions
from cluster.models.storage import (
    CloneFolder,
    CreateFolder,
    DeleteFile,
    DeleteFolder,
    RestoreFolder,
    SetFolderQuota,
    ShareFolder,
    UnshareFolder,
    UploadFile,
)
from cluster.models.store import InstallModel
from cluster.sentence import Sentence

__all__ = ["AuditEntry", "Effect", "Operation", "OperationRequest", "Outcome", "Undo"]


class Undo(Model):
    op: Literal["undo"] = "undo"
    action: str | None = None
    """An audit id; the asking person's last operation that can be undone when left out."""


Operation = Annotated[
    StartSession
    | TerminateSessions
    | RestartSession
    | SetSessionPriority
    | CordonNode
    | UncordonNode
    | DrainNode
    | MoveNode
    | SetSchedulingPolicy
    | CreateFolder
    | DeleteFolder
    | DeleteFile
    | RestoreFolder
    | ShareFolder
    | UnshareFolder
    | CloneFolder
    | SetFolderQuota
    | InstallModel
    | DeployModel
    | ScaleEndpoint
    | SetAutoscaling
    | DeleteEndpoint
    | CreateProject
    | CreateUser
    | DeactivateUser
    | ReactivateUser
    | LinkUser
    | AddProjectMember
    | RemoveProjectMember
    | SetQuota
    | RegisterImage
    | CreateToken
    | RevokeToken
    | PutPipeline
    | DeletePipeline
    | RunPipeline
    | CancelPipelineRun
    | ResumePipelineRun
    | Undo,
    Field(discriminator="op"),
]


class Effect(Model):
    """One consequence of an operation, shown before it is done and true after it."""

    kind: Literal[
        "starts",
        "waits",
        "held",
        "stops",
        "restarts",
        "delayed",
        "sooner",
        "changes",
        "creates",
        "removes",
        "restores",
        "lost",
    ]
    target: str
    """Name of what is touched (`resnet-sweep`, `a100-03`)."""
    message: Sentence
    owner: str | None = None
    """Whose it is, when it isn't the asking person's."""
    stable: bool = True
    """False for what moves with the clock only (an estimate, an age): it does not count in the digest."""


class Outcome(Model):
    """What an operation did, or would do (`dry_run`). A refusal is one too: `refused` is not empty, nothing changed."""

    operation: Operation
    dry_run: bool
    refused: list[Reason] = []
    effects: list[Effect] = []
    warnings: list[Sentence] = []
    quota_left: Resources | None = None
    """What the asking person could still start afterwards; None without a quota."""
    undo: Sentence | None = None
    """How it can be put back; None when it cannot, then `warnings` say what is lost."""
    digest: str = ""
    """Of the operation and its stable effects. Give it back as `expect` when the person has agreed."""
    audit_id: str | None = None
    made: TokenMade | None = Field(default=None, exclude=True)
    """The token, for create_token: for the route that shows it, and never written down or sent with the outcome."""
    session: Session | None = None
    """The session made, for start_session; of several the first."""


class OperationRequest(Model):
    """Body of POST /v1/operations. With `expect`: only if its effects still have that digest (else `state_changed`)."""

    operation: Operation
    dry_run: bool = False
    expect: str | None = None
    key: str | None = Field(default=None, max_length=200)
    """Idempotency key: the same key of the same user gives the first outcome again and does nothing."""


class AuditEntry(Model):
    """Who did what, on which, with what result; and how to put it back."""

    id: str
    at: datetime
    user: str
    action: str
    """The operation's name, which is the tool's."""
    operation: Annotated[Operation | UploadFile | dict[str, Any], Field(union_mode="left_to_right")]
    """As it was asked; as JSON when this version has no such operation, or it was too long to be kept whole."""
    targets: list[str] = []
    result: Literal["done", "refused", "failed"] = "done"
    """refused: nothing was changed, for `reasons`; failed: it could not be written, or the server has a bug."""
    reasons: list[Reason] = []
    inverse: dict[str, Any] | None = None
    """The operation that puts it back, as JSON, or a server-side step (`op` starting with `_`)."""
    undone_by: str | None = None
