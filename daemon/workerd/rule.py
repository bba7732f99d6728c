"""A rule: when a schedule is due. A pure function of time; the due times do not depend on when it was made or looked at."""

from __future__ import annotations

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
SHORTEST = timedelta(seconds=1)  # between two due times
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # from which intervals count
CHANGES_APART = timedelta(hours=6)  # no clock changes twice within it


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
                step = timedelta(seconds=parse_duration(self.text))  # in whole microseconds, as all that follows
                if step < SHORTEST:
                    raise ValueError("the shortest interval is 1s")
                return EPOCH + ((moment - EPOCH) // step + 1) * step
            case "cron":
                # a minute and an hour that are given make a fixed time
                fixed = not any(field.startswith("*") for field in self.text.split()[-5:-3])
                zone = _zone(self.tz)
                return self._fixed_after(moment.astimezone(zone)) if fixed else self._interval_after(moment, zone)

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

    def _fixed_after(self, moment: datetime) -> datetime | None:
        """A fixed time is due once a day: at the first of two, and, where the clock leaves it out, just behind the gap."""
        for wall in _cron(self.text, moment.replace(tzinfo=None)):
            due = _real(wall.replace(tzinfo=moment.tzinfo, fold=0))
            if due > moment.astimezone(UTC):
                return due
        return None

    def _interval_after(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        """Whatever the clock shows is due whenever it shows it: looked for between one change of the clock and the next."""
        offset = _offset(zone, moment)
        begin = moment + offset
        while True:
            wall = next(_cron(self.text, begin.replace(tzinfo=None)), None)
            if wall is None:
                return None
            due = wall.replace(tzinfo=UTC) - offset
            change = _change(zone, moment, due)
            if change is None:
                return due
            moment, offset = change, _offset(zone, change)
            begin = moment + offset - timedelta(seconds=1)  # the change itself may be due

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


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    """How far the clock of the zone is ahead."""
    return moment.astimezone(zone).utcoffset() or timedelta()


def _change(zone: ZoneInfo, since: datetime, until: datetime) -> datetime | None:
    """The first moment behind `since`, up to `until`, from which on the clock is ahead by another time, to the second."""
    offset = _offset(zone, since)
    while since < until:
        middle = min(since + CHANGES_APART, until)
        if _offset(zone, middle) != offset:
            low, high = int(since.timestamp()), int(middle.timestamp())
            while high - low > 1:
                half = (low + high) // 2
                low, high = (half, high) if _offset(zone, datetime.fromtimestamp(half, UTC)) == offset else (low, half)
            return datetime.fromtimestamp(high, UTC)
        since = middle
    return None


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
