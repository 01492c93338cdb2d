"""The base of every table of a suite file, and the types of its values."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

T = TypeVar("T")


def _within_reach(tolerance: float) -> float:
    """Raise ValueError for a tolerance whose products with others are 0 or infinite: no dtype resolves it anyway."""
    if not 1e-100 <= tolerance <= 1e100:
        raise ValueError("must be from 1e-100 to 1e100")
    return tolerance


AxisValues = Annotated[list[T], BeforeValidator(lambda v: v if isinstance(v, list) else [v]), Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Tolerance = Annotated[Positive, AfterValidator(_within_reach)]
LARGEST = 2**63 - 1
"""The largest integer that a column of rows can hold."""

Count = Annotated[int, Field(ge=1, le=LARGEST, strict=True)]
Natural = Annotated[int, Field(ge=0, le=LARGEST, strict=True)]
Rounds = Annotated[int, Field(ge=0, le=1000, strict=True)]
"""Of a warm-up, whose time nothing else limits."""

Threads = Annotated[int, Field(ge=1, le=1024, strict=True)]
"""More than a machine has cores; torch makes as many as it is told, until the system refuses."""

Name = Annotated[str, Field(min_length=1, strict=True)]


class TomlTable(BaseModel):
    """A table of a suite file. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
