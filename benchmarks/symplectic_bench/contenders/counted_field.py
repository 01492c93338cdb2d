"""A field that counts its calls."""

from torch import Tensor, nn

from symplectic_bench.contenders.counts import Counts


class CountedField(nn.Module):
    """A field that counts its calls and its vector-Jacobian products, separately for each phase.

    Set backward_phase when the backward pass begins. Solvers that put a module's attributes back for the backward pass
    leave a set as it is.
    """

    def __init__(self, func: nn.Module) -> None:
        super().__init__()
        self.func = func
        self._begun: set[str] = set()
        self.calls = [0, 0]  # forward, backward
        self.vjps = [0, 0]

    @property
    def backward_phase(self) -> bool:
        """Whether the backward pass has begun."""
        return "backward" in self._begun

    @backward_phase.setter
    def backward_phase(self, begun: bool) -> None:
        (self._begun.add if begun else self._begun.discard)("backward")

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls[self.backward_phase] += 1
        value = self.func(t, y)
        if value.requires_grad:
            value.register_hook(self._count_vjp)
        return value

    def _count_vjp(self, grad: Tensor) -> None:
        del grad
        self.vjps[self.backward_phase] += 1

    def counts(self, accepted: int | None, rejected: int | None) -> Counts:
        """Return the counts so far, with the steps that the solver took."""
        (forward, backward), (vjps_forward, vjps_backward) = self.calls, self.vjps
        return Counts(forward, backward, vjps_forward, vjps_backward, accepted, rejected)
