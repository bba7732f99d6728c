"""What all words are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Key = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
Id = Annotated[int, Field(ge=0, lt=2**63)]
Small = Annotated[int, Field(ge=0, lt=2**31)]
Few = Annotated[int, Field(ge=0, le=1_000_000)]  # what a node can count between two tellings
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Json = Annotated[str, Field(max_length=16_000_000, description="JSON, as text.", pattern=r"^[^\x00]*$")]
Line = Annotated[str, Field(pattern=r"^[^\x00]*$")]
MOST = 1000  # ends or tickets of one request


def example(**members: Any) -> ConfigDict:
    """What OpenAPI shows for a model."""
    return ConfigDict(json_schema_extra={"example": members})


class Word(BaseModel):
    """What one side says: a member that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)
