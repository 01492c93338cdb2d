"""The user's code of a case: its solves, its loss and its backward passes, for any solver."""

import torch

from tests.generated.events import EVENT_FUNCTIONS
from tests.generated.states import mapped
from tests.oracle import leaves

SOLVES = {"several": 3, "apart": 3}
ORDER = (1, 0, 2)
"""In which solves that are apart are differentiated."""


class Script:
    """What a case computes. Run it with a world and a solver.

    solver(func, y0, t, event_fn) -> (event_t or None, ys).
    """

    def __init__(self, case, world, solver, passes=None):
        self._case, self.world, self._solver = case, world, solver
        self._passes = passes or case.passes
        self.values = {}
        """Of ys and of the times of events, by name."""

    def run(self):
        """Return the gradients by name; a name may be None where nothing depends on it."""
        losses = self._losses()
        inputs = self.world.leaves.inputs
        wanted = {name: x for name, x in inputs.items() if x.requires_grad}
        loss, passes = sum(losses), self._passes
        if not loss.requires_grad:
            return dict.fromkeys(wanted)
        if passes == "apart":  # what is upstream of all of them is retained
            each = {n: self._gradients(losses[n], wanted, retain_graph=True) for n in ORDER if losses[n].requires_grad}
            return {f"{name} by solve {n}": x for n, found in each.items() for name, x in found.items()}
        if passes == "twice":
            first = self._gradients(loss, wanted, retain_graph=True)
            return first | {f"{name} again": x for name, x in self._gradients(loss, wanted).items()}
        if passes == "double":
            return self._double(loss, wanted)
        if passes == "upstream afterwards":
            return self._upstream_afterwards(loss, wanted)
        return self._gradients(loss, wanted)

    def _losses(self):
        """Return the loss of each solve; each starts where the one before ended, unless they are apart."""
        case, world, losses = self._case, self.world, []
        y, t = world.leaves.y0, world.leaves.t
        solves = SOLVES.get(case.passes, 1)
        for n in range(solves):
            event_fn = EVENT_FUNCTIONS[case.event](case)
            event_t, ys = self._solver(world.func(), y, t, event_fn)
            flat = rows(ys)
            self.values[f"ys of solve {n}"] = flat
            if event_t is not None:
                self.values[f"event of solve {n}"] = event_t
            if case.event == "jump aside":
                ys, flat, event_t = mapped(lambda part: part[:1], ys), flat[:1], None
            linear, quadratic = world.leaves.weights[:, : len(flat)]
            loss = size(linear * flat + 0.5 * quadratic * flat * flat)
            losses.append(loss if event_t is None else loss + 0.5 * event_t)
            if case.passes != "apart":
                y = mapped(lambda part: part[-1], ys)
            world.change(last=n == solves - 1)
        if case.passes == "upstream reused":
            losses += [size(x * x) for x in world.adopted]
        return losses

    def _gradients(self, loss, inputs, **keywords):
        """Return the gradients by name; that of t has one entry for each distinct time."""
        bars = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True, **keywords)
        result = dict(zip(inputs, bars, strict=True))
        if result.get("t") is not None:
            result["t"] = of_distinct_times(result["t"], self.world.leaves.t.tolist())
        return result

    def _double(self, loss, wanted):
        first = self._gradients(loss, wanted, create_graph=True)
        squares = [size(x * x) for x in first.values() if x is not None and x.requires_grad]
        result = {f"first {name}": x for name, x in first.items()}
        if not squares:
            return result
        return result | self._gradients(sum(squares), wanted)

    def _upstream_afterwards(self, loss, wanted):
        """Differentiate down to what func adopts, and then what that was computed from, in a pass of its own."""
        adopted = {f"adopted {n}": x for n, x in enumerate(self.world.adopted) if x.requires_grad}
        upstream = {name for name in self.world.leaves.tensors if adopted and depends(adopted.values(), wanted[name])}
        direct = {name: x for name, x in wanted.items() if name not in upstream}
        result = self._gradients(loss, direct | adopted)
        bars = {name: result.pop(name) for name in adopted}
        pairs = [(adopted[name], bar) for name, bar in bars.items() if bar is not None]
        if not pairs:
            return result | dict.fromkeys(upstream)
        outputs, cotangents = [x for x, _ in pairs], [bar for _, bar in pairs]
        bars = torch.autograd.grad(outputs, [wanted[x] for x in sorted(upstream)], cotangents, allow_unused=True)
        return result | dict(zip(sorted(upstream), bars, strict=True))


def rows(ys):
    """Return the outputs as one matrix, time first."""
    return torch.cat([part.reshape(len(part), -1) for part in leaves(ys)], dim=1)


def size(x):
    """Return the sum of the real and imaginary parts, in the dtype in which sums are not rounded."""
    x = torch.view_as_real(x) if x.is_complex() else x
    return x.double().sum()


def of_distinct_times(bar, times):
    """Return the gradient of t with the entries of equal times added up, which alone autograd defines."""
    return torch.stack([sum(bar[n] for n, time in enumerate(times) if time == one) for one in dict.fromkeys(times)])


def depends(outputs, leaf):
    """Return whether any output's graph reaches the leaf."""
    bars = [torch.autograd.grad(size(x), leaf, retain_graph=True, allow_unused=True)[0] for x in outputs]
    return any(bar is not None for bar in bars)
