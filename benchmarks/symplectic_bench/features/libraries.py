"""The columns, in the order of the table. This is where libraries are registered."""

from symplectic_bench.features.diffrax import LACKS, Diffrax
from symplectic_bench.features.library import Library
from symplectic_bench.features.torch_libraries import (
    OdeintLibrary,
    Ours,
    Pnode,
    Rampde,
    TorchDiffEqPack,
    Torchdyn,
    Torchode,
    Zuko,
)

PEERS = 'python -m pip install ".[peers]"'
PIP = "python -m pip install"
_IN_DISPLAY_ORDER: tuple[Library, ...] = (
    Ours("ours", "odeint", "symplectic_adjoint", "symplectic-adjoint", f"{PIP} ."),
    OdeintLibrary("torchdiffeq", "odeint", "torchdiffeq", "torchdiffeq", f"{PIP} torchdiffeq"),
    OdeintLibrary("torchdiffeq-adjoint", "odeint_adjoint", "torchdiffeq", "torchdiffeq", f"{PIP} torchdiffeq"),
    Torchode("torchode", "AutoDiffAdjoint", "torchode", "torchode", PEERS),
    Diffrax("diffrax", "diffeqsolve", "diffrax", "diffrax", PEERS, LACKS),
    TorchDiffEqPack("torchdiffeqpack", "odesolve_adjoint", "TorchDiffEqPack", "TorchDiffEqPack", PEERS),
    Rampde(
        "rampde",
        "odeint",
        "rampde",
        "rampde",
        f'{PIP} "git+https://github.com/EmoryMLIP/rampde"',
        {"per_sample_steps": "no step control", "many_outputs": "its steps are the intervals between outputs"},
    ),
    Torchdyn("torchdyn", "ODEProblem", "torchdyn", "torchdyn", f"{PIP} torchdyn"),
    Zuko("zuko", "odeint", "zuko", "zuko", f"{PIP} zuko"),
    Pnode("pnode", "odeint_adjoint", "pnode", "pnode", "docs/contenders.md says how to build PETSc and PNODE"),
)
LIBRARIES = {library.name: library for library in _IN_DISPLAY_ORDER}
