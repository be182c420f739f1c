"""All tools by name: those that are built, and what to say of those that are not yet."""

from collections.abc import Iterable, Iterator
from functools import cache
from inspect import getdoc
from typing import Any

from tools.autoscaling import SetAutoscalingTool
from tools.base import Context, Result, Tool
from tools.catalogue import catalogue
from tools.cluster import GetAuditLog, GetClusterStatus, ListEvents, ListImages, ListResourceGroups, UndoTool
from tools.designing import DesignCluster
from tools.diagnose import Diagnose
from tools.endpoints import DeleteEndpointTool, DeployModelTool, GetEndpoint, ListEndpoints, ScaleEndpointTool
from tools.files import CloneFolderTool, ListFiles, SetFolderQuotaTool, ShareFolderTool, UnshareFolderTool
from tools.folders import CreateFolderTool, DeleteFolderTool, ListFolders, RestoreFolderTool
from tools.images import RegisterImageTool
from tools.membership import (
    AddProjectMemberTool,
    CreateProjectTool,
    CreateUserTool,
    DeactivateUserTool,
    RemoveProjectMemberTool,
)
from tools.models import GetModel, InstallModelTool, ListModels
from tools.nodes import CordonNodeTool, DrainNodeTool, GetNode, ListNodes, MoveNodeTool, UncordonNodeTool
from tools.outcome import unfit
from tools.people import ListProjects, ListUsers
from tools.pipelines import (
    CancelPipelineRunTool,
    GetPipelineRun,
    ListPipelines,
    ResumePipelineRunTool,
    RunPipelineTool,
)
from tools.planned import not_yet
from tools.quotas import GetQuota, SetQuotaTool
from tools.scheduling import EstimateStartTool, SetSchedulingPolicyTool
from tools.sessions import ExplainPending, GetSession, GetSessionLogs, ListSessions
from tools.starting import StartSessionTool, TerminateSessionsTool
from tools.tending import RestartSessionTool, SetSessionPriorityTool
from tools.utilization import GetUtilization


class Registry:
    """Tools by name, in the order of the catalogue."""

    def __init__(self, tools: Iterable[Tool[Any]]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def __iter__(self) -> Iterator[Tool[Any]]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def get(self, name: str) -> Tool[Any] | None:
        """The tool, or None when there is none (see `absent`)."""
        return self._tools.get(name)

    def is_planned(self, name: str) -> bool:
        """In the contract's catalogue, but not built yet."""
        return name in catalogue() and name not in self._tools

    def absent(self, name: str, ctx: Context) -> Result:
        """The refusal for a tool that is not there: "Helmsman can't scale endpoints yet"."""
        return unfit(ctx, "unavailable" if self.is_planned(name) else "not_found", not_yet(name))

    def schemas(self) -> list[dict[str, Any]]:
        """Name, description and JSON schema of every tool, as models with function calling read them."""
        return [{"name": t.name, "description": describe(t), "parameters": t.schema()} for t in self]


def describe(tool: Tool[Any]) -> str:
    """What a tool does, for models and people."""
    return getdoc(type(tool)) or tool.name


@cache
def default_registry() -> Registry:
    """Every tool that Helmsman has."""
    return Registry(
        [
            ListSessions(), GetSession(), StartSessionTool(), TerminateSessionsTool(), RestartSessionTool(),
            GetSessionLogs(), SetSessionPriorityTool(), ExplainPending(), EstimateStartTool(),
            ListNodes(), GetNode(), CordonNodeTool(), UncordonNodeTool(), DrainNodeTool(), MoveNodeTool(),
            GetClusterStatus(), GetUtilization(), Diagnose(), ListEvents(), GetAuditLog(), UndoTool(),
            ListResourceGroups(), SetSchedulingPolicyTool(),
            ListFolders(), CreateFolderTool(), DeleteFolderTool(), RestoreFolderTool(),
            ShareFolderTool(), UnshareFolderTool(), CloneFolderTool(), SetFolderQuotaTool(), ListFiles(),
            ListImages(), RegisterImageTool(),
            ListProjects(), CreateProjectTool(), ListUsers(), CreateUserTool(), DeactivateUserTool(),
            AddProjectMemberTool(), RemoveProjectMemberTool(), GetQuota(), SetQuotaTool(),
            ListPipelines(), RunPipelineTool(), GetPipelineRun(), CancelPipelineRunTool(), ResumePipelineRunTool(),
            ListModels(), GetModel(), InstallModelTool(),
            DeployModelTool(), ListEndpoints(), GetEndpoint(), ScaleEndpointTool(), SetAutoscalingTool(),
            DeleteEndpointTool(),
            DesignCluster(),
        ]
    )  # fmt: skip
