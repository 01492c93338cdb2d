"""The module of the kinds that have one: a field, and parts beside it that func never reads."""

import torch
from torch import nn

from tests.generated.field import GAINS, IN_EVAL, slope


class Network(nn.Module):
    """The field with its weights, called with the number."""

    def __init__(self, W, b):
        super().__init__()
        self.W, self.b = W, b

    def forward(self, t, y, gain):
        return slope(t, y, self.W, self.b, gain)


class Model(nn.Module):
    """The field with its weights and number, which its mode scales; a head, a teacher and statistics that it ignores.

    W is None where it is to be set as something else than a parameter.
    """

    def __init__(self, W, b):
        super().__init__()
        if W is not None:
            self.W = W
        self.b, self.gain, self.which, self.code = b, GAINS[0], 0, None
        self.networks = self.last_time = None
        self.calls_of_field = 0
        self.head = nn.BatchNorm1d(2)
        self.teacher = nn.Linear(2, 2).requires_grad_(False)
        self.student = nn.Linear(2, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, t, y):
        return self.scaled(1.0, t, y)

    def field(self, t, y):
        return self.scaled(1.0, t, y)

    def scaled(self, factor, t, y):
        W = self.W if self.code is None else self.W + self.code
        return slope(t, y, W, self.b, factor * self._gain())

    def of_network(self, t, y):
        network = self.networks[self.which]
        return network(t, y, self._gain())

    def counted(self, t, y):
        self.calls_of_field += 1
        self.last_time = t
        return self.scaled(1.0, t, y)

    def scheduled(self, t, y):
        return self._with_gain(self.schedule[0] * self.schedule[1], t, y)

    def configured(self, t, y):
        return self._with_gain(self.config.gain, t, y)

    def _with_gain(self, gain, t, y):
        return slope(t, y, self.W, self.b, gain if self.training else gain * IN_EVAL)

    def _gain(self):
        return self.gain if self.training else self.gain * IN_EVAL


def networks(leaves):
    """Return the networks of two segments."""
    return [Network(leaves["W0"], leaves["b0"]), Network(leaves["W1"], leaves["b1"])]
