"""Images that sessions are started from."""

from typing import Annotated

from pydantic import Field

from cluster.models import Operation, Outcome, RegisterImage, S, Sentence
from tools.base import Arguments, Context, OperationTool, Risk
from tools.kinds import Kind

NewImage = Annotated[str, Kind("text"), Field(min_length=1, max_length=300)]


class RegisterImageArguments(Arguments):
    image: NewImage = Field(description="Name and tag: pytorch:2.8-cuda12.")
    registry: NewImage | None = Field(None, description="Where it is fetched from: ghcr.io.")


class RegisterImageTool(OperationTool[RegisterImageArguments]):
    """Register a container image, so that sessions can be started from it."""

    name = "register_image"
    risk = Risk.W
    arguments = RegisterImageArguments
    rows_of = "image"

    def operation(self, ctx: Context, args: RegisterImageArguments) -> Operation:
        return RegisterImage(image=args.image, registry=args.registry)

    def title(self, ctx: Context, args: RegisterImageArguments, outcome: Outcome) -> Sentence:
        if args.registry:
            return S("Register the image {image} from {registry}", image=args.image, registry=args.registry)
        return S("Register the image {image}", image=args.image)

    def done(self, ctx: Context, args: RegisterImageArguments, outcome: Outcome) -> Sentence:
        return S("The image {image} is registered.", image=args.image)
