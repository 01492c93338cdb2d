"""The base of every table of a suite file, and the types of its values."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

T = TypeVar("T")
AxisValues = Annotated[list[T], BeforeValidator(lambda v: v if isinstance(v, list) else [v]), Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Name = Annotated[str, Field(min_length=1, strict=True)]


class TomlTable(BaseModel):
    """A table of a suite file. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
