"""Ordinary autograd over a recorded grid, written from the definition and sharing no code with the solver.

Only data comes from the library: the coefficients of the method and the grid that it recorded.
"""

import torch


def replay(func, tableau, grid, y0, t):
    """ys at every entry of t, on the graph of y0, t and func's parameters.

    A pinned end T gives h = T - start; a free one start + h with h constant; an output on its own pin is y+, any
    other one is dense output.
    """
    A = [[float(a) for a in row] for row in (*tableau.A, *tableau.interpolant.A)]
    c = [float(x) for x in (*tableau.c, *tableau.interpolant.c)]
    b = [float(x) for x in tableau.b]
    dense = [[float(x) for x in row] for row in tableau.interpolant.weights]
    ys, y, start = {0: y0}, y0, t[0]
    for n in range(len(grid.t)):
        pin = int(grid.pinned_to[n])
        if pin == -2:
            h = grid.h[n]
        elif pin == -1:
            h = (grid.t[n] + grid.h[n]) - start
        else:
            h = t[pin] - start
        inside = [j for j, m in enumerate(grid.output_step.tolist()) if m == n and j != pin]
        rows = len(A) if inside else len(tableau.A)
        ks = []
        for i in range(rows):
            stage = y + h * sum((a * k for a, k in zip(A[i], ks, strict=True)), torch.zeros_like(y))
            ks.append(func(start + c[i] * h, stage))
        end = y + h * sum(weight * k for weight, k in zip(b, ks, strict=False))
        for j in inside:
            sigma = (t[j] - start) / h
            weights = [sum(x * sigma ** (p + 1) for p, x in enumerate(row)) for row in dense]
            ys[j] = y + h * sum(weight * k for weight, k in zip(weights, ks, strict=True))
        if pin >= 0 and int(grid.output_step[pin]) == n:
            ys[pin] = end
        y, start = end, start + h
    return torch.stack([ys[j] for j in range(len(t))])


def relative_error(a, b):
    """||a - b|| / ||b||; both None counts as equal."""
    if a is None or b is None:
        return 0.0 if a is b or not (a if b is None else b).any() else float("inf")
    a, b = a.detach(), b.detach()
    scale = b.norm()
    return float((a - b).norm() / scale) if scale > 0 else float((a - b).norm())
