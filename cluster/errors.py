"""Every error that leaves the cluster. The docstring says when; the sentence says what, where and what to do."""

from cluster.sentence import S, Sentence


class ClusterError(Exception):
    """Base. `sentence` is for people; `status` is the HTTP status of its RFC 9457 problem."""

    status = 500
    code = "internal"

    def __init__(self, sentence: Sentence, candidates: list[str] | None = None) -> None:
        super().__init__(str(sentence))
        self.sentence = sentence
        self.candidates = candidates or []


class NotFound(ClusterError):
    """Nothing has this name or id; `candidates` are the nearest that exist."""

    status = 404
    code = "not_found"


class Ambiguous(ClusterError):
    """The name fits several; `candidates` are their unambiguous names."""

    status = 409
    code = "ambiguous"


class NotAllowed(ClusterError):
    """The asking person may not do or see this."""

    status = 403
    code = "not_allowed"


class NotAuthenticated(ClusterError):
    """The token is missing or unknown."""

    status = 401
    code = "not_authenticated"


class Invalid(ClusterError):
    """A request that can't be read, or makes no sense."""

    status = 422
    code = "invalid"


class Conflict(ClusterError):
    """The thing is in a state in which this can't be done."""

    status = 409
    code = "conflict"


class StorageFull(ClusterError):
    """The disk or the folder's quota is full."""

    status = 507
    code = "storage_full"


class Unavailable(ClusterError):
    """The server does not answer."""

    status = 503
    code = "unavailable"


class TooMany(ClusterError):
    """The asking person has as many of these under way as one may have."""

    status = 429
    code = "too_many"


class ScenarioError(ClusterError):
    """A scenario file with mistakes; the sentence holds all of them with their lines."""

    status = 422
    code = "scenario"


def unreachable(url: str, why: str) -> Unavailable:
    """The server at `url` did not answer."""
    return Unavailable(
        S("The cluster's server at {url} does not answer ({why}). Start it with `helmsman up`.", url=url, why=why)
    )
