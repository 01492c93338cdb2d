"""The static buffers of the programs of a step: what goes in, what comes out, and the stages."""

from collections.abc import Sequence

import torch
from torch import Tensor

from symplectic_adjoint.field.matrix_products import addmv, mv
from symplectic_adjoint.methods.tableau import ButcherTableau

ALIGNMENT_BYTES = 256

NORMS = 4
"""The most numbers that a program returns: three for the first step size, and a flag."""


class ProgramBuffers:
    """The static buffers of one set of programs, for states like `like` and steps of this method.

    States are flattened in the order of their memory, so that a stage sum is one product of a matrix and a vector: row
    i of `ks` is k_i; in the transpose, l_i takes the place of k_i once no earlier stage needs that. Below them lies
    lam, as b lies below the a_i. rows: how many rows of the extended tableau the steps use.
    """

    def __init__(self, tableau: ButcherTableau, rows: int, like: Tensor, time_dtype: torch.dtype):
        n, device = like.numel(), like.device
        self.tableau, self.dtype, self.time_dtype = tableau, like.dtype, time_dtype
        self._shape, self._stride = like.shape, _dense_strides(like)
        self._stack = _aligned_rows(rows + 1, n, like)
        self.ks, self.lam = self._stack[:rows], self._stack[rows]
        self.y, self.end, self.after, self.increment = (self.lam.new_zeros(n) for _ in range(4))
        """y, y+, the start of the step that was transposed before, and sum l_i."""
        self.y_state, self.end_state, self.lam_state = map(self.view, (self.y, self.end, self.lam))
        self.stages = tuple(map(self.view, self.ks.unbind()))
        """The rows of ks as states."""
        self.end_slope = self.stages[tableau.stages] if rows > tableau.stages else self.stages[0]
        """f at the end of a step, if there is a row for it; else k_1 itself."""
        self.scalars = torch.zeros(1 + rows, dtype=torch.float64, device=device)
        """h, and the times of the rows."""
        self.norms = torch.zeros(NORMS, dtype=torch.float64, device=device)
        self.norms_on_host = torch.zeros(NORMS, dtype=torch.float64, device="cpu", pin_memory=device.type == "cuda")
        self.time_sums = torch.zeros(3, dtype=torch.float64, device=device)
        """sum tau_i, sum c_i tau_i and sum k_i . w_i of a transposed step."""
        self.differences = torch.zeros(rows + 1, 3, dtype=like.dtype.to_real(), device=device)
        """Of each stage |k_i - its kept value|, |k_i| and |k_i| again, and of the end of a step |y+ - its kept value|,
        |y+| and |k_s|, in the maximum norm."""
        self.end_differences, self.k_size = self.differences[rows], self.differences[rows, 2]
        self.tolerances: list[Tensor] = []
        """rtol and atol, each a number or a tensor like the state."""
        self._numbers: list[float | None] = []
        """Those of the tolerances that are numbers, as they were set."""
        self._mu: Tensor | None = None
        self._values: Tensor | None = None
        self._stage_coefficients: Tensor | None = None
        self._coefficients = torch.tensor(_coefficients(tableau, rows), dtype=torch.float64, device=device)
        self._b_row = rows

    @property
    def rows(self) -> int:
        """The number of rows of the extended tableau that there is room for."""
        return len(self.ks)

    @property
    def mu(self) -> Tensor:
        """sum_m b_i(sigma_m) mu_m for each row i: the outputs' part of the cotangents of the stages."""
        if self._mu is None:
            self._mu = _aligned_rows(self.rows, len(self.y), self.y)
        return self._mu

    @property
    def values(self) -> Tensor:
        """The k_i of a transposed step, kept apart for the cotangents of the outputs' times."""
        if self._values is None:
            self._values = _aligned_rows(self.rows, len(self.y), self.y)
        return self._values

    def view(self, flat: Tensor) -> Tensor:
        """Return a flattened state in its own shape and strides."""
        return flat.as_strided(self._shape, self._stride, flat.storage_offset())

    def flat(self, x: Tensor) -> Tensor:
        """Return a state, flattened in the order of the buffers."""
        flat = torch.empty_like(self.y)
        self.view(flat).copy_(x)
        return flat

    def numbers(self, x: Sequence[float]) -> Tensor:
        """Return numbers, one for each row, as a vector on the device, without making the host wait."""
        padded = [*x[: self.rows], *[0.0] * (self.rows - len(x))]
        host = torch.tensor(padded, dtype=self.dtype.to_real(), device="cpu")
        host = host.pin_memory() if self.y.is_cuda else host
        return host.to(self.y.device, non_blocking=True).to(self.dtype)

    def set_scalars(self, h: float, times: Sequence[float]) -> None:
        """Set h and the times of the first rows. So few numbers are copied without a wait, pinned or not."""
        host = torch.tensor([h, *times, *[0.0] * (self.rows - len(times))], dtype=torch.float64, device="cpu")
        self.scalars.copy_(host, non_blocking=True)

    def set_start(self, y: Tensor | None, k: Tensor | None) -> None:
        """Set what the next step starts from, unless it is None: where the last one ended, and its k_1 there."""
        if y is not None:
            self.end_state.copy_(y)
        if k is not None:
            self.end_slope.copy_(k)

    def start_from_end(self, *, k_1: bool) -> None:
        """Set y, and with k_1 that too, from the end of the last step."""
        self.y.copy_(self.end)
        if k_1 and self.end_slope is not self.stages[0]:
            self.ks[0].copy_(self.ks[self.tableau.stages])

    def set_stages(self, ks: Sequence[Tensor]) -> None:
        """Set the first stages; one that already lies in its row is left there."""
        for row, k in zip(self.stages, ks, strict=False):
            if k is not row:
                row.copy_(k)

    def set_tolerances(self, given: Sequence[float | Tensor]) -> None:
        """Set rtol and atol, which keep their shapes as long as the programs live."""
        if not self.tolerances:
            with torch.inference_mode(False):  # whose tensors could not be set in later solves
                number = torch.zeros((), dtype=torch.float64, device=self.ks.device)
                self.tolerances = [torch.zeros_like(x if isinstance(x, Tensor) else number) for x in given]
            self._numbers = [None] * len(given)
        for i, x in enumerate(given):
            if isinstance(x, Tensor):
                self.tolerances[i].copy_(x)
            elif x != self._numbers[i]:
                self.tolerances[i].fill_(x)
                self._numbers[i] = x

    def step_weights(self) -> Tensor:
        """Return h times the rows a_i, b and the error weights, in the state's precision, on the device."""
        return torch.mul(
            self._coefficients, self.scalars[0], out=torch.empty_like(self._coefficients, dtype=self.dtype)
        )

    def times(self) -> Sequence[Tensor]:
        """Return the times of the rows as func gets them."""
        return self.scalars[1:].to(self.time_dtype).unbind()

    def stage_scalars(self, coefficients: Sequence[Sequence[float]]) -> Sequence[Tensor]:
        """Return the scalars of every stage as CompiledSteps.stage_vjp takes them: its time, and h times these."""
        if self._stage_coefficients is None:
            host = torch.tensor(coefficients, dtype=torch.float64, device="cpu")
            self._stage_coefficients = host.to(self.scalars.device)
        times = self.scalars[1 : 1 + len(coefficients), None]
        return torch.cat([times, self.scalars[0] * self._stage_coefficients], 1).unbind()

    def state(self, weights: Tensor, i: int) -> Tensor:
        """Return Y_i, flattened; row s of the extended tableau is the end of the step."""
        if i == self.tableau.stages:
            return self.step_end(weights)
        if i == 0:
            return self.y
        return addmv(self.y, self.ks[:i].T, weights[i, :i])

    def step_end(self, weights: Tensor) -> Tensor:
        """Set the end of the step, and return it: y + h sum b_i k_i, flattened, with y added last; see advance."""
        s = self.tableau.stages
        mv(self.ks[:s].T, weights[self._b_row, :s], out=self.increment)
        return torch.add(self.y, self.increment, out=self.end)

    def errors(self, weights: Tensor, rows: int) -> list[Tensor]:
        """Return the local error estimates, in the state's shape."""
        ks = self.ks[:rows].T
        return [self.view(mv(ks, row[:rows])) for row in weights[self._b_row + 1 :]]

    def roundings(self, weights: Tensor, rows: int, eps: float | Tensor) -> list[Tensor]:
        """Return eps h sum |e_i| |k_i| for each error estimate; see Step.rounding."""
        ks = self.ks[:rows].abs().T
        weights = weights.abs().to(ks.dtype)
        return [self.view(mv(ks, row[:rows])).mul_(eps) for row in weights[self._b_row + 1 :]]

    def combined_values(self, coefficients: Sequence[float]) -> Tensor:
        """Return sum_i c_i k_i of the values of a transposed step, flattened."""
        return mv(self.values.T, self.numbers(coefficients))

    def set_norms(self, norms: Sequence[Tensor], outdated: Tensor | None = None) -> None:
        """Set the numbers that the host reads next: these norms, and whether the programs are outdated if given."""
        for at, norm in zip(self.norms.unbind(), norms, strict=False):
            at.copy_(norm)
        if outdated is not None:
            self.norms[-1].copy_(outdated)
        self.norms_on_host.copy_(self.norms, non_blocking=True)

    def add_stages(self, *, into_lam: bool) -> None:
        """Add up the l_i in the rows of ks, so that lam, which is usually larger, is rounded once."""
        torch.sum(self.ks, 0, out=self.increment)
        if into_lam:
            self.lam.add_(self.increment)

    def cotangent(self, weights: Tensor, i: int, *, outputs: bool) -> Tensor:
        """Return w_i = h (b_i lam + sum_m b_i(sigma_m) mu_m + sum_{j>i} a_ji l_j), flattened. All l_j must be set."""
        w = mv(self._stack[i + 1 :].T, weights[i + 1 : self.rows + 1, i])
        return w.addcmul_(self.mu[i], self.scalars[0].to(self.dtype)) if outputs else w


def _aligned_rows(count: int, n: int, like: Tensor) -> Tensor:
    """Return rows of n zeros, each aligned like a tensor of its own: func's sums may be rounded by alignment."""
    width = -(-n * like.element_size() // ALIGNMENT_BYTES) * ALIGNMENT_BYTES // like.element_size()
    return torch.zeros(count, width, dtype=like.dtype, device=like.device)[:, :n]


def _coefficients(tableau: ButcherTableau, rows: int) -> list[list[float]]:
    """Return the rows a_i of the extended tableau, b, and the error weights, each with an entry for every row."""
    table = []
    for terms in (*tableau.terms.A[:rows], tableau.terms.b, *tableau.terms.errors):
        weights = dict(terms)
        table.append([weights.get(i, 0.0) for i in range(rows)])
    return table


def _dense_strides(x: Tensor) -> tuple[int, ...]:
    """Return the strides of x if it fills its memory in some order of the dimensions, else contiguous ones."""
    like = torch.empty_like(x, memory_format=torch.preserve_format)
    return like.stride()
