"""How a case ended: right, refused by a name on the list, or in one of three ways that may never be."""

from dataclasses import dataclass

KINDS = ("right", "refused", "wrong", "false refusal", "crash")
NEVER = KINDS[2:]


@dataclass(frozen=True)
class Outcome:
    """kind: one of KINDS; detail: the name of the refusal, or what was wrong."""

    kind: str
    detail: str = ""

    @property
    def allowed(self) -> bool:
        return self.kind not in NEVER
