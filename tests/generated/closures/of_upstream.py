"""Values that autograd reaches in unusual ways: pieces, views, outputs of one function."""

import torch

from tests.generated.closures.of_functions import LeafInClosure
from tests.generated.field import encode


class _Pieces(LeafInClosure):
    encodes = True

    @classmethod
    def joined(cls, leaves):
        return encode(torch.cat([leaves["W0"], leaves["b0"].unsqueeze(1)], dim=1))


class PiecesOfSplit(_Pieces):
    @classmethod
    def upstream(cls, leaves):
        W, b = cls.joined(leaves).split([len(leaves["b0"]), 1], dim=1)
        return W, b.squeeze(1)


class PiecesOfUnbind(_Pieces):
    """Both values are outputs of one node."""

    @classmethod
    def upstream(cls, leaves):
        *rows, b = torch.cat([encode(leaves["W0"]), leaves["b0"].unsqueeze(0)]).unbind()
        return torch.stack(rows), b


class ViewOfChangedBase(LeafInClosure):
    """W is a view, made before its base was changed in place."""

    encodes = True

    @classmethod
    def upstream(cls, leaves):
        base = torch.cat([encode(leaves["W0"]), leaves["b0"].unsqueeze(0)])
        W, b = base[:-1], base[-1]
        base.mul_(0.9)
        base[0].add_(0.1)
        return W, b


class OutputsOfOneFunction(LeafInClosure):
    """W and b are the two outputs of one custom Function."""

    encodes = True

    @classmethod
    def upstream(cls, leaves):
        return TwoOutputs.apply(leaves["W0"], leaves["b0"])


class TwoOutputs(torch.autograd.Function):
    """(a, b) -> (0.9 a, 0.5 b + 0.2 sum(a)), differentiable twice."""

    @staticmethod
    def forward(ctx, a, b):
        return 0.9 * a, 0.5 * b + 0.2 * a.sum()

    @staticmethod
    def backward(ctx, grad_a, grad_b):
        return 0.9 * grad_a + 0.2 * grad_b.sum(), 0.5 * grad_b
