"""The leaves of a case, and the func of each of its solves: as the user writes it, or as the truth has it."""

import torch
from torch import nn

from tests.generated.changes import CHANGES
from tests.generated.closures import CLOSURES
from tests.generated.dtypes import DTYPES, raised
from tests.generated.field import slope
from tests.generated.states import draw_state, mapped
from tests.generated.times import output_times
from tests.oracle import flatten, leaves


class Leaves:
    """The tensors that gradients are taken of, by name. wide: whether in the dtype of the truth, with equal values."""

    def __init__(self, case, *, wide):
        dtype, generator = DTYPES[case.dtype], torch.Generator().manual_seed(case.id)
        of_truth = raised(dtype.of_state)
        cast = (lambda x: x.to(raised(x.dtype))) if wide else (lambda x: x)
        self.y0 = mapped(cast, draw_state(case.state, dtype.of_state, generator))
        self.t = cast(torch.tensor(output_times(case), dtype=dtype.of_time))
        size, kind = flatten(self.y0).numel(), CLOSURES[case.closure]
        self.tensors = {}
        for n in range(2 if kind.turns == "network" else 1):
            for name, shape in ((f"W{n}", (size, size)), (f"b{n}", (size,))):
                drawn = torch.randn(shape, dtype=of_truth, generator=generator) * 0.8 / size ** (0.5 * len(shape))
                bounded = drawn / drawn.norm().clamp(min=1.0)  # the sine of a complex number may explode
                leaf = cast(bounded.to(dtype.of_state))
                self.tensors[name] = nn.Parameter(leaf) if name in kind.parameters else leaf.requires_grad_()
        self.inputs = dict(self.tensors)
        if case.wants_y0:
            self.inputs |= {f"y0[{i}]": part.requires_grad_() for i, part in enumerate(leaves(self.y0))}
        if case.wants_t:
            self.inputs["t"] = self.t.requires_grad_()
        shape = (2, len(self.t), size)
        self.weights = cast(torch.randn(shape, dtype=of_truth, generator=generator).to(dtype.of_state))
        if case.outputs == "last" and case.event == "none":
            self.weights[:, :-1] = 0.0


class World:
    """The user's side of a case: func reaches its values as its kind says, and things change."""

    def __init__(self, case):
        self.leaves = Leaves(case, wide=False)
        self.closure = CLOSURES[case.closure](self.leaves.tensors)
        self.adopted = self.closure.adopted(self.leaves.tensors, (self.closure.W, self.closure.b))
        self._change, self._turns = CHANGES[case.change], 0

    def func(self):
        """Return what is passed to a solve that starts now."""
        return self.closure.func()

    def change(self, *, last):
        """Make the change of the case, after a solve."""
        if last or not self._change.at_end:
            self._turns += 1
            self._change.act(self.closure, self._turns)

    def left(self):
        """Return the state that solves and backward passes may not change: f, and tensors that f does not read."""
        found = {} if self._change.at_end else {"f afterwards": value(self.func(), self.leaves)}
        if self.closure.has_model:
            head = self.closure.model.head
            found["statistics afterwards"] = torch.stack([*head.running_mean, head.num_batches_tracked]).double()
        return found


class TrueWorld:
    """The truth's side: a pure function of the values that func would read, each bound when the solve starts."""

    def __init__(self, case):
        self.leaves = Leaves(case, wide=True)
        self._kind, self._changed = CLOSURES[case.closure], case.change
        self._leaves_changed = CHANGES[case.change].at_end
        self._times, self._turns, self._training = 0, 0, True
        self.adopted = self._kind.adopted(self.leaves.tensors, self._kind.upstream(self.leaves.tensors))

    def func(self):
        values = self._kind.values(self.leaves.tensors, self._turns, self._training)
        return lambda t, y: slope(t, y, values.W, values.b, values.gain)

    def change(self, *, last):
        del last
        self._times += 1
        self._turns += self._changed == "turned"
        self._training ^= self._changed == "mode"

    def left(self):
        found = {} if self._leaves_changed else {"f afterwards": value(self.func(), self.leaves)}
        if self._kind.has_model:
            head = nn.BatchNorm1d(2)
            for k in range(self._times if self._changed == "norm statistics" else 0):
                head(torch.full((3, 2), k + 1.0))
            found["statistics afterwards"] = torch.stack([*head.running_mean, head.num_batches_tracked]).double()
        return found


def value(func, leaves):
    """Return what func computes now, at the start."""
    with torch.no_grad():
        return flatten(func(leaves.t[0].to(flatten(leaves.y0).real.dtype), leaves.y0))
