"""The gradients, one per file, and the registry of their presets."""

from collections.abc import Mapping
from types import MappingProxyType

from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.gradients.aca import Aca
from symplectic_adjoint.gradients.backprop import Backprop
from symplectic_adjoint.gradients.baseline import Baseline
from symplectic_adjoint.gradients.continuous import Continuous
from symplectic_adjoint.gradients.mali import Mali
from symplectic_adjoint.gradients.reversible import Reversible
from symplectic_adjoint.gradients.revolve import Revolve
from symplectic_adjoint.gradients.symplectic import Symplectic

DEFAULT_GRADIENT = "symplectic"
"""The preset that odeint uses by default."""

GRADIENTS: Mapping[str, Strategy] = MappingProxyType(
    {
        "backprop": Backprop(),
        "baseline": Baseline(),
        "aca": Aca(),
        "symplectic": Symplectic(),
        "stages": Symplectic(keep="stages"),
        "revolve": Revolve(),
        "reversible": Reversible(),
        "mali": Mali(),
        "continuous": Continuous(),
    }
)
"""The presets of `gradient=`, by name."""

OTHER_NAMES = {other: name for name, gradient in reversed(list(GRADIENTS.items())) for other in gradient.also_called}
"""Names that other libraries use, each with the preset's name here: the first of those that share a class."""
