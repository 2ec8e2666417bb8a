"""What the models of the workload file share: strict, closed, and bounded numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from simulator.workload.operations import MAX_DIMENSION

MAX_LAYERS = 4096

Count = Annotated[int, Field(ge=1, le=MAX_DIMENSION)]
"""A dimension or a count."""
Layers = Annotated[int, Field(ge=1, le=MAX_LAYERS)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Model(BaseModel):
    """No unknown key, no conversion between types, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
