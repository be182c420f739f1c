"""What agents call: registration, and beats as long polls."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from cluster.api.asking import TheCore, agent
from cluster.enrolment import Enrolment
from cluster.models import Beat, BeatReply, NodeInfo, Registered

router = APIRouter(tags=["agents"], prefix="/v1/agents", dependencies=[Depends(agent)])


async def _enrolment(request: Request) -> Enrolment:
    enrolment: Enrolment = request.app.state.enrolment
    return enrolment


TheEnrolment = Annotated[Enrolment, Depends(_enrolment)]


@router.post("/register")
async def register(core: TheCore, enrolment: TheEnrolment, info: NodeInfo) -> Registered:
    registered = await enrolment.admit(info)
    await core.agents.register(info)
    return registered


@router.post("/{node}/beat")
async def beat(core: TheCore, enrolment: TheEnrolment, node: str, beat: Beat) -> BeatReply:
    await enrolment.check(node, beat.secret)
    return await core.agents.beat(node, beat)
