"""A rule: when a schedule is due. A pure function of time; the due times do not depend on when it was made or looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from workerd.bounds import check_time
from workerd.errors import TaskError
from workerd.units import parse_duration

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from cronsim import CronSim

Kind = Literal["cron", "every", "at"]
CatchUp = Literal["none", "last", "all"]
GRACE = timedelta(seconds=60)  # after which a due time counts as missed: whoever leads may have to be elected first
SHORTEST = 1.0  # seconds between two due times


@dataclass(frozen=True)
class Rule:
    """`text` is a cron expression of five fields, or six with seconds first; a duration; or an ISO time with zone. Raises TaskError."""

    kind: Kind
    text: str
    tz: str = "UTC"

    def __post_init__(self) -> None:
        try:
            _zone(self.tz)
            self.next_after(datetime.now(UTC))
        except (
            ValueError,
            OSError,
            KeyError,
            TaskError,
        ) as error:  # an unknown zone is a KeyError, a folder an OSError
            raise TaskError(f"the schedule {self.kind} {self.text!r} in {self.tz!r} cannot be: {error}") from error

    def next_after(self, moment: datetime) -> datetime | None:
        """The first due time behind `moment`, in UTC; None: never again."""
        match self.kind:
            case "at":
                at = datetime.fromisoformat(self.text)
                check_time("the time", at)
                return at.astimezone(UTC) if at > moment else None
            case "every":
                seconds = parse_duration(self.text)
                if seconds < SHORTEST:
                    raise ValueError("the shortest interval is 1s")
                return datetime.fromtimestamp((math.floor(moment.timestamp() / seconds) + 1) * seconds, UTC)
            case "cron":
                return self._cron_after(moment.astimezone(_zone(self.tz)))

    @property
    def words(self) -> str:
        """For people, in English."""
        match self.kind:
            case "at":
                return f"once at {self.text}"
            case "every":
                return f"every {self.text}"
            case "cron":
                return f"{_cron(self.text, datetime.now(UTC)).explain()}, {self.tz}"

    def _cron_after(self, moment: datetime) -> datetime | None:
        """A fixed time is due once a day: at the first of two, and, where the clock leaves it out, just behind the gap."""
        fields = self.text.split()
        fixed = not any(field.startswith("*") for field in fields[-5:-3])
        for wall in _cron(self.text, moment.replace(tzinfo=None) if fixed else moment):
            due = _real(wall.replace(tzinfo=moment.tzinfo, fold=0)) if fixed else wall.astimezone(UTC)
            if due > moment.astimezone(UTC):
                return due
        return None

    def latest(self, due: datetime, now: datetime) -> datetime:
        """The last due time up to `now`, `due` being one; found by halving, since there may be millions."""
        high = now
        while high - due > timedelta(seconds=0.5):
            middle = due + (high - due) / 2
            later = self.next_after(middle)
            if later is not None and later <= now:
                due = later
            else:
                high = middle
        return due


def _cron(text: str, moment: datetime) -> CronSim:
    """Raises ValueError for an expression that is none."""
    from cronsim import CronSim, CronSimError

    try:
        return CronSim(text, moment)
    except CronSimError as error:
        raise ValueError(str(error)) from error


def _zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def _real(wall: datetime) -> datetime:
    """The UTC time of a time on the wall; of one that the clock leaves out, the first behind the gap."""
    while wall != wall.astimezone(UTC).astimezone(wall.tzinfo):
        wall += timedelta(minutes=1)
    return wall.astimezone(UTC)


def due_times(
    rule: Rule, due: datetime, now: datetime, catch_up: CatchUp, most: int
) -> tuple[list[datetime], datetime | None]:
    """The times up to `now` for which there is to be a job, `due` being the first one that had none, at most `most`; and the next one."""
    if catch_up == "all":
        times: list[datetime] = []
        following: datetime | None = due
        while following is not None and following <= now and len(times) < most:
            times.append(following)
            following = rule.next_after(following)
        return times, following
    latest = rule.latest(due, now)
    missed = catch_up == "none" and now - latest > GRACE
    return [] if missed else [latest], rule.next_after(now)
