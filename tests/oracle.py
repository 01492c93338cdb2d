"""Ordinary autograd over a recorded grid, written from the definition and sharing no code with the solver.

Only data comes from the library: the coefficients of the method and the grid that it recorded.
"""

from math import prod

import torch

from tests.coupled_oracle import coupled_stages


def replay(func, tableau, grid, y0, t, pair=None):
    """Return ys at every entry of t, on the graph of y0, t and func's parameters, in the structure of y0.

    A pinned end T makes h = T - start; a free end is start + h with h constant. An output on its own pin is y+, any
    other one is dense output. If a step's start or end is open, func is passed the adjacent time inside the step.
    func: for an additive method (explicit, implicit). pair: for steps that carry a second state, ("leapfrog", eta) or
    ("coupled", coupling).
    """
    if pair is not None:
        return _replay_pairs(func, tableau, grid, y0, t, *pair)
    functions = func if isinstance(func, tuple) else (func, func)
    if isinstance(y0, torch.Tensor):
        return _replay_tensor(functions, tableau, grid, y0, t)

    def flat(part):
        return lambda time, y: flatten(part(time, unflatten(y, y0)))

    return unflatten(_replay_tensor(tuple(map(flat, functions)), tableau, grid, flatten(y0), t), y0)


def _replay_tensor(functions, tableau, grid, y0, t):
    A = [[float(a) for a in row] for row in (*tableau.A, *tableau.interpolant.A)]
    c = [float(x) for x in (*tableau.c, *tableau.interpolant.c)]
    b = [float(x) for x in tableau.b]
    dense = [[float(x) for x in row] for row in tableau.interpolant.weights]
    diagonal = [float(x) for x in tableau.diagonal or ()] + [0.0] * len(A)
    parts = (*tableau.parts, *tableau.interpolant.parts) if tableau.parts else [0] * len(A)
    t = t.double()
    ys, y, start = {j: y0 for j, n in enumerate(grid.output_step.tolist()) if n < 0}, y0, t[0]
    for n in range(len(grid.t)):
        pin = int(grid.pinned_to[n])
        h, end_time = _size_and_end(grid, n, start, t)
        inside = [j for j, m in enumerate(grid.output_step.tolist()) if m == n and j != pin]
        rows = len(A) if inside else len(tableau.A)
        ks, times = [], []
        for i in range(rows):
            at_end = c[i] == 1.0 or (c[i] > 1.0 and grid.open_end[n])  # beyond a jump f is another function
            time = start if c[i] == 0.0 else end_time if at_end else start + c[i] * h
            is_open = (c[i] == 0.0 and grid.open_start[n]) or (at_end and grid.open_end[n])
            time = _in_the_states_dtype(time, y0)
            if is_open:
                time = _next_float(time, start if at_end else end_time)
            if tableau.coupled:
                times.append(time)
                continue
            stage = y + h * sum((a * k for a, k in zip(A[i], ks, strict=True)), torch.zeros_like(y))
            func = functions[parts[i]]
            ks.append(_implicit(func, time, stage, h * diagonal[i]) if diagonal[i] else func(time, stage))
        if tableau.coupled:
            ks = coupled_stages(functions[0], times, y, h, tableau.matrix)
        end = y + h * sum(weight * k for weight, k in zip(b, ks, strict=False))
        for j in inside:
            sigma = (t[j] - start) / h
            weights = [sum(x * sigma ** (p + 1) for p, x in enumerate(row)) for row in dense]
            ys[j] = y + h * sum(weight * k for weight, k in zip(weights, ks, strict=True))
        if pin >= 0 and int(grid.output_step[pin]) == n:
            ys[pin] = end
        y, start = end, end_time
    return torch.stack([ys[j] for j in range(len(t))])


def _implicit(func, time, y, hg):
    """Return k = func(time, y + hg k): by Newton's method, whose last two iterations are on the graph.

    They have the solution's Jacobian as a constant. Where N(k) = k, N' is then zero, so that N(N(k)) has the first and
    second derivatives of the implicit function, whatever those of k are.
    """
    with torch.no_grad():
        k = torch.zeros_like(y)
        for _ in range(50):
            J = torch.autograd.functional.jacobian(lambda x: func(time.detach(), x), y + hg * k)
            M = torch.eye(y.numel(), dtype=y.dtype) - hg * J.reshape(y.numel(), y.numel())
            change = torch.linalg.solve(M, (func(time, y + hg * k) - k).reshape(-1)).reshape(y.shape)
            k = k + change
            if change.abs().max() <= 1e-15 * k.abs().max():
                break
    for _ in range(2):
        residual = (func(time, y + hg * k) - k).reshape(-1)
        k = k + torch.linalg.solve(M, residual).reshape(y.shape)
    return k


def _replay_pairs(func, tableau, grid, y0, t, kind, number):
    """Replay asynchronous leapfrog with damping `number`, or the method coupled by `number`. Outputs are on pins."""
    t = t.double()
    start, ys, y = t[0], [y0 for n in grid.output_step.tolist() if n < 0], y0
    other = func(_in_the_states_dtype(start, y0), y0) if kind == "leapfrog" else y0
    for n in range(len(grid.t)):
        h, end = _size_and_end(grid, n, start, t)
        if kind == "leapfrog":
            half = y + h / 2 * other
            new = func(_in_the_states_dtype(start + h / 2, y), half)
            other = (1 - 2 * number) * other + 2 * number * new
            y = half + h / 2 * other
        else:
            y = number * y + (1 - number) * other + _increment(func, tableau, start, end, h, other)
            other = other - _increment(func, tableau, end, start, -h, y)
        ys += [y for m in grid.output_step.tolist() if m == n]
        start = end
    return torch.stack(ys)


def _increment(func, tableau, start, end, h, y):
    """Return the increment of y in one step of h from (start, y)."""
    ks = []
    for row, c in list(zip(tableau.A, tableau.c, strict=True))[: tableau.stages]:
        time = _in_the_states_dtype(start if c == 0 else end if c == 1 else start + float(c) * h, y)
        stage = y + h * sum((float(a) * k for a, k in zip(row, ks, strict=True)), torch.zeros_like(y))
        ks.append(func(time, stage))
    return h * sum(float(weight) * k for weight, k in zip(tableau.b, ks, strict=False))


def _size_and_end(grid, n, start, t):
    """Return (h, the end's time) with the recorded values, as functions of t where the end is pinned to it."""
    pin = int(grid.pinned_to[n])
    if pin >= 0:
        return t[pin] - start, t[pin]
    end = grid.t[n + 1] if n + 1 < len(grid.t) else grid.t[n] + grid.h[n]  # the step of an event has a free end
    if pin == -1:
        return end - start, end
    return grid.h[n], end + (start - start.detach())  # the start's own derivative, the recorded value


def _in_the_states_dtype(time, y):
    return time.to(y.real.dtype)


def _next_float(time, towards):
    """Return the next float after `time`, with the derivative of `time`."""
    adjacent = torch.nextafter(time.detach(), towards.detach().to(time.dtype))
    return adjacent + (time - time.detach())


def leaves(state):
    """Return the tensors of a structure of tuples, lists and dicts, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state
    return [leaf for part in parts for leaf in leaves(part)]


def flatten(state):
    """Return one vector of all parts, in order."""
    return torch.cat([leaf.reshape(-1) for leaf in leaves(state)])


def unflatten(flat, like):
    """Return the structure whose parts are consecutive pieces of the last dimension of flat."""
    parts, taken = [], 0
    for leaf in leaves(like):
        size = prod(leaf.shape)
        parts.append(flat[..., taken : taken + size].reshape((*flat.shape[:-1], *leaf.shape)))
        taken += size
    return _rebuilt(like, iter(parts))


def _rebuilt(like, parts):
    if isinstance(like, torch.Tensor):
        return next(parts)
    if isinstance(like, dict):
        return {name: _rebuilt(part, parts) for name, part in like.items()}
    return type(like)(_rebuilt(part, parts) for part in like)


def relative_error(a, b):
    """Return ||a - b|| / ||b||. Two None are equal, and None equals zeros."""
    if a is None or b is None:
        return 0.0 if a is b or not (a if b is None else b).any() else float("inf")
    a, b = a.detach(), b.detach()
    scale = b.norm()
    return float((a - b).norm() / scale) if scale > 0 else float((a - b).norm())
