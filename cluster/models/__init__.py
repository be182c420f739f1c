"""The cluster's door: every shape that crosses the API, for clients and agents alike; one file a subject.

Units: memory and storage in bytes, `cpu` in cores, `gpu` in devices (a fraction sits on one device), durations in
seconds, times are aware datetimes in UTC, shares and utilisation 0..1, temperature in °C, power in W.
"""

from cluster.models.agents import *
from cluster.models.base import *
from cluster.models.diagnosis import *
from cluster.models.endpoints import *
from cluster.models.journal import *
from cluster.models.nodes import *
from cluster.models.operations import *
from cluster.models.people import *
from cluster.models.pipelines import *
from cluster.models.sessions import *
from cluster.models.storage import *
from cluster.models.store import *
from cluster.models.utilization import *
from cluster.sentence import S as S
from cluster.sentence import Sentence as Sentence
