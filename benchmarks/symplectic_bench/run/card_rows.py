"""The rows of gpu-report: one problem each, and who computes its gradient."""

from dataclasses import dataclass, field
from typing import Any

from symplectic_bench.measure.card_turns import Entrant, Kind
from symplectic_bench.problems import PROBLEMS
from symplectic_bench.spec.cell import Cell

CAPTURED, EAGER = "ours-captured symplectic", "ours symplectic"
TORCHDIFFEQ, DIFFRAX = "torchdiffeq backprop", "diffrax backprop"
BARE: dict[str, Kind] = {"bare calls": "calls", "captured bare calls": "captured calls"}
"""The names of the floors."""

CONTENDERS = (
    CAPTURED,
    EAGER,
    "ours stages",
    "ours backprop",
    TORCHDIFFEQ,
    "torchdiffeq continuous",
    "torchode backprop",
    DIFFRAX,
    *BARE,
)


@dataclass(frozen=True)
class CardRow:
    """A problem in float32, solved at rtol = atol or in fixed steps.

    diffrax_method: that of diffrax, where it lacks the row's and has another of about the same cost. thorough:
    whether memory, waits and launches are measured too.
    """

    name: str
    problem: str
    batch: int
    sizes: dict[str, Any] = field(default_factory=dict)
    method: str = "dopri5"
    tolerance: float | None = None
    steps: int | None = None
    contenders: tuple[str, ...] = CONTENDERS
    diffrax_method: str | None = None
    thorough: bool = True

    def entrants(self) -> dict[str, Entrant]:
        """Return the entrants by name."""
        return {name: Entrant(self._cell(name), BARE.get(name, "gradient")) for name in self.contenders}

    def _cell(self, name: str) -> Cell:
        contender, gradient = (EAGER if name in BARE else name).split()
        method = self.diffrax_method if contender == "diffrax" and self.diffrax_method else self.method
        sizes = tuple(sorted({**PROBLEMS[self.problem].sizes, **self.sizes}.items()))
        accuracy = {"rtol": self.tolerance, "atol": self.tolerance, "steps": self.steps}
        how = {"contender": contender, "gradient": gradient, "dtype": "float32", "device": "cuda", **accuracy}
        return Cell("gpu-report", self.problem, sizes, self.batch, method, threads=1, seed=0, **how)


def mlp(state: int, width: int, layers: int) -> dict[str, Any]:
    """Return the sizes of a network."""
    return {"state": state, "width": width, "layers": layers, "end": 2.0}


ROWS = (
    CardRow("small", "mlp", 128, mlp(2, 64, 2), tolerance=1e-6),
    CardRow("med", "mlp", 256, mlp(64, 256, 3), tolerance=1e-6),
    CardRow("big", "mlp", 512, mlp(128, 1024, 4), tolerance=1e-5),
    CardRow(
        "fix50",
        "mlp",
        256,
        mlp(16, 128, 3),
        method="rk38",
        steps=50,
        contenders=tuple(name for name in CONTENDERS if not name.startswith("torchode")),
        diffrax_method="bosh3",
    ),
    CardRow(
        "fix400",
        "mlp",
        256,
        mlp(16, 128, 3),
        method="rk38",
        steps=400,
        contenders=(CAPTURED, EAGER, "captured bare calls"),
        thorough=False,
    ),
    CardRow(
        "identity",
        "identity",
        1,
        {"dim": 8, "end": 10.0},
        tolerance=1e-6,
        contenders=(CAPTURED, EAGER, "ours stages", "ours backprop", TORCHDIFFEQ, "torchode backprop", DIFFRAX),
    ),
)
"""The rows whose targets a captured solve has, with the sizes, batches and tolerances of the first run on a card."""
