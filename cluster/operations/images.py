"""Images that sessions can be started from."""

import re
import unicodedata

from cluster import access
from cluster.db.tables import ImageRow
from cluster.errors import NotFound
from cluster.models import Effect, Reason, RegisterImage
from cluster.sentence import S
from cluster.transaction import Done, Refused, Transaction

_NAME = re.compile(r"[^\W_][\w./:@+-]{0,299}")
"""It is given to podman and docker as it is, so it never looks like an option of theirs."""
_REGISTRY = re.compile(r"[^\W_][\w.-]{0,252}(:\d{1,5})?(/[\w./-]{1,200})?")


async def register(tx: Transaction, op: RegisterImage) -> Done:
    """Known from now on, or fetched from another registry than before."""
    access.must_may(tx.user, "register", "image")
    name, registry = unicodedata.normalize("NFC", op.image.strip()), (op.registry or "").strip() or None
    if not _NAME.fullmatch(name):
        message = S("{image} can't be an image's name; it looks like pytorch:2.8 or ghcr.io/lab/train:1.", image=name)
        raise Refused(Reason(code="invalid", message=message))
    if registry is not None and not _REGISTRY.fullmatch(registry):
        message = S("{registry} can't be a registry; it looks like ghcr.io or registry.lab:5000.", registry=registry)
        raise Refused(Reason(code="invalid", message=message))
    row = await tx.db.get(ImageRow, name)
    if row is not None and registry in (None, row.origin):
        message = S("Image {image} is registered already.", image=name)
        raise Refused(Reason(code="conflict", message=message))
    return await _known(tx, row, name, registry)


async def _known(tx: Transaction, row: ImageRow | None, name: str, registry: str | None) -> Done:
    before = row.origin if row is not None else None
    if row is None:
        tx.db.add(ImageRow(name=name, origin=registry))
    else:
        row.origin = registry
    await tx.db.flush()
    tx.event("image_registered", name, S("{user} registered image {image}.", user=tx.user.name, image=name))
    message = (
        S("Sessions can be started from {image}, which is fetched from {registry}.", image=name, registry=registry)
        if registry
        else S("Sessions can be started from {image}.", image=name)
    )
    return Done(
        effects=[Effect(kind="creates" if row is None else "changes", target=name, message=message)],
        targets=[name],
        undo=S("undo takes {image} back as it was.", image=name),
        inverse={"op": "_restore_image", "image": name, "there": row is not None, "registry": before},
    )


async def put_back(tx: Transaction, name: str, there: bool, registry: str | None) -> Done:
    """Undo of `register`. What runs from the image goes on."""
    access.must_may(tx.user, "register", "image")
    row = await tx.db.get(ImageRow, name)
    if row is None:
        raise NotFound(S("There is no image {image}.", image=name))
    if there:
        row.origin = registry
        message = S("Image {image} is as it was before.", image=name)
    else:
        await tx.db.delete(row)
        message = S("Image {image} is not registered any more; what runs from it goes on.", image=name)
    await tx.db.flush()
    tx.event("image_changed", name, message)
    return Done(effects=[Effect(kind="changes" if there else "removes", target=name, message=message)], targets=[name])
