"""What nodes and managers say to each other, as OpenAPI describes it. Durations and ages are seconds; leases, tickets and ids integers."""

from workerd.remote.words.base import MOST
from workerd.remote.words.node import (
    Beat,
    LaneWords,
    LeaseWords,
    NewNode,
    Notices,
    OrderDone,
    OrderWords,
    Registered,
    TaskSchedule,
    TaskWords,
)
from workerd.remote.words.run import Claim, ClaimedJob, Claims, End, Finish, FinishDone, Held, LogLine, Release, Started
from workerd.remote.words.tell import Logged, Look, Looked, Report, Reports, StepDone, StepKept, TallyWords

__all__ = [
    "MOST",
    "Beat",
    "Claim",
    "ClaimedJob",
    "Claims",
    "End",
    "Finish",
    "FinishDone",
    "Held",
    "LaneWords",
    "LeaseWords",
    "LogLine",
    "Logged",
    "Look",
    "Looked",
    "NewNode",
    "Notices",
    "OrderDone",
    "OrderWords",
    "Registered",
    "Release",
    "Report",
    "Reports",
    "Started",
    "StepDone",
    "StepKept",
    "TallyWords",
    "TaskSchedule",
    "TaskWords",
]
