"""A folder can be used when its contents are complete."""

from cluster.db.tables import FolderRow
from cluster.models import Reason
from cluster.sentence import S
from cluster.transaction import Refused


def must_be_ready(row: FolderRow) -> None:
    """A folder whose clone is under way, or has failed, cannot be used."""
    if row.state == "cloning":
        message = S("{folder} is still being copied; it can be used when that is done.", folder=row.name)
        raise Refused(Reason(code="conflict", message=message))
    if row.state != "ready":
        message = S("{folder} could not be copied; delete it and clone again.", folder=row.name)
        raise Refused(Reason(code="conflict", message=message))
