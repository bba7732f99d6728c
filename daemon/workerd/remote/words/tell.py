"""What running jobs tell and ask."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from workerd.remote.words.base import MOST, Few, Json, Line, Name, Seconds, Word, example
from workerd.remote.words.run import Held, LogLine

ONE_AT_1_MS = [*[0] * 26, 1, *[0] * 93]  # a histogram


class Report(Held):
    fraction: Annotated[float, Field(ge=0, le=1)]
    message: Line | None = None


class Logged(Held):
    lines: list[LogLine]


class Reports(Word):
    """How far jobs are, and what they have logged."""

    model_config = example(
        reports=[{"n": 7, "pos": 12, "id": 42, "fraction": 0.4, "message": "page 2 of 5"}],
        logged=[{"n": 7, "pos": 12, "id": 42, "lines": [{"number": 1, "message": "no text layer: OCR"}]}],
    )

    reports: Annotated[list[Report], Field(max_length=10 * MOST)] = Field(default_factory=list)
    logged: Annotated[list[Logged], Field(max_length=10 * MOST)] = Field(default_factory=list)


class TallyWords(Word):
    """What was counted of one task of one queue; histograms of run times and waits by the places of `workerd.queue.tally`."""

    model_config = example(task="ocr_extract", queue="ocr", succeeded=1, run=ONE_AT_1_MS, wait=ONE_AT_1_MS)

    task: Name
    queue: Name
    succeeded: Few = 0
    failed: Few = 0
    cancelled: Few = 0
    retried: Few = 0
    run: Annotated[list[Few], Field(min_length=120, max_length=120)]
    wait: Annotated[list[Few], Field(min_length=120, max_length=120)]


class StepDone(Held):
    model_config = example(n=7, pos=12, id=42, name="charge", result='{"receipt": 1234}')

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    result: Json


class StepKept(BaseModel):
    result: str | None = Field(description="The one that holds; null: the job was taken back.")


class Look(Held):
    model_config = example(n=7, pos=12, id=42, event="approved", timeout=3600)

    event: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    timeout: Seconds


class Looked(BaseModel):
    answer: str | None = Field(description="JSON, as text.")
    left: float | None = Field(description="Until it has timed out; null without an answer: the job was taken back.")
