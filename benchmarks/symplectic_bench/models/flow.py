"""Continuous normalizing flows: densities of tables, and of images over several scales.

Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, FFJORD: Free-form Continuous Dynamics for Scalable Reversible
Generative Models, ICLR 2019. The scales are those of Dinh, Sohl-Dickstein and Bengio, Density Estimation Using Real
NVP, ICLR 2017: half of what each scale has found is done, the other half goes on at half the resolution.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from symplectic_bench.models.integrate import UNIT_TIME, Integrate
from symplectic_bench.problems.flow import ConcatSquash, Transport, Velocity

Noise = Callable[[Tensor], Tensor | None]
"""The noise of Hutchinson's trace for a state z, (batch, dim), drawn anew for each component; None: the exact trace."""


def exact(z: Tensor) -> None:
    """The Noise that there is none of."""
    del z


class Flow(nn.Module):
    """M components in a row, each from time 0 to 1, that carry data x, (batch, dim), to the normal distribution."""

    def __init__(self, velocities: Sequence[nn.Module]) -> None:
        super().__init__()
        self.components = row_of(velocities)

    def log_density(self, x: Tensor, integrate: Integrate, noise: Noise) -> Tensor:
        """log p(x), (batch,), in nats."""
        z, change = carry(self.components, x, integrate, noise)
        return log_normal(z) - change


def row_of(velocities: Iterable[nn.Module]) -> nn.ModuleList:
    """Their fields, each one object for good: what a solver has learned of it holds for the next solve too."""
    return nn.ModuleList(Transport(velocity, None) for velocity in velocities)


def forget_noise(model: nn.Module) -> None:
    """Let go of what its fields drew last."""
    for module in model.modules():
        if isinstance(module, Transport):
            module.noise = None


def carry(components: nn.ModuleList, x: Tensor, integrate: Integrate, noise: Noise) -> tuple[Tensor, Tensor]:
    """z after the last component, and the change l of log-density on the way, (batch,)."""
    state = torch.cat([x, x.new_zeros(len(x), 1)], dim=1)
    for transport in components:
        assert isinstance(transport, Transport), "row_of makes no others"
        transport.noise = noise(state[:, :-1])
        state = integrate(transport, state, UNIT_TIME)[-1]
    return state[:, :-1], state[:, -1]


def log_normal(z: Tensor) -> Tensor:
    return -0.5 * (z.square().sum(dim=1) + z.shape[1] * math.log(2 * math.pi))


def tabular_flow(dim: int, components: int, width: int, layers: int, nonlinearity: str) -> Flow:
    """Each component has `layers` hidden layers of `width` units."""
    widths = [dim, *[width] * layers, dim]

    def component() -> Velocity:
        return Velocity([concat_squash(n, m) for n, m in pairwise(widths)], nonlinearity)

    return Flow([component() for _ in range(components)])


def concat_squash(inputs: int, outputs: int) -> ConcatSquash:
    """The weights on the time as those of a linear layer of one input: uniform between -1 and 1."""
    gate, gate_bias, shift = (torch.empty(outputs).uniform_(-1, 1) for _ in range(3))
    return ConcatSquash(nn.Linear(inputs, outputs), gate, gate_bias, shift)


class ImageVelocity(nn.Module):
    """f(t, z) of z, (batch, channels * height * width): convolutions with the time as one more channel, softplus."""

    def __init__(self, shape: tuple[int, int, int], width: int, layers: int) -> None:
        super().__init__()
        self.shape = shape
        widths = [shape[0], *[width] * layers, shape[0]]
        self.layers = nn.ModuleList(nn.Conv2d(n + 1, m, kernel_size=3, padding=1) for n, m in pairwise(widths))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        h = z.unflatten(1, self.shape)
        for i, layer in enumerate(self.layers):
            h = nn.functional.softplus(h) if i else h
            h = layer(torch.cat([h, t.to(h).expand(len(h), 1, *self.shape[1:])], dim=1))
        return h.flatten(1)


class ImageFlow(nn.Module):
    """Components at each resolution of an image of (channels, size, size), which is halved from scale to scale.

    At a scale but the last `blocks` components come before squeezing (four pixels to four channels) and as many after,
    then half of the channels are done. The last scale, the smallest, has `blocks`.
    """

    def __init__(self, channels: int, size: int, scales: int, blocks: int, width: int, layers: int) -> None:
        super().__init__()
        if size % 2 ** (scales - 1):
            raise ValueError(f"{scales} scales halve the size {scales - 1} times, which {size} does not allow")
        self.scales = nn.ModuleList()
        self.shapes: list[tuple[int, int, int]] = []
        shape = (channels, size, size)
        for scale in range(scales):
            self.shapes.append(shape)
            self.scales.append(_row_of(blocks, shape, width, layers))
            if scale < scales - 1:
                squeezed = (4 * shape[0], shape[1] // 2, shape[2] // 2)
                self.scales.append(_row_of(blocks, squeezed, width, layers))
                shape = (squeezed[0] // 2, *squeezed[1:])

    @property
    def components(self) -> int:
        return sum(len(row) for row in self._rows())

    def _rows(self) -> Iterator[nn.ModuleList]:
        for row in self.scales:
            assert isinstance(row, nn.ModuleList)
            yield row

    def log_density(self, x: Tensor, integrate: Integrate, noise: Noise) -> Tensor:
        """log p(x), (batch,), in nats, of x, (batch, channels * size * size)."""
        rows, change, log_density = list(self._rows()), x.new_zeros(len(x)), x.new_zeros(len(x))
        for scale, shape in enumerate(self.shapes):
            x, before = carry(rows[2 * scale], x, integrate, noise)
            change = change + before
            if scale == len(self.shapes) - 1:
                break
            x = nn.functional.pixel_unshuffle(x.unflatten(1, shape), 2).flatten(1)
            x, after = carry(rows[2 * scale + 1], x, integrate, noise)
            change = change + after
            done, x = x.chunk(2, dim=1)  # the first half of the channels
            log_density = log_density + log_normal(done)
        return log_density + log_normal(x) - change


def _row_of(blocks: int, shape: tuple[int, int, int], width: int, layers: int) -> nn.ModuleList:
    return row_of(ImageVelocity(shape, width, layers) for _ in range(blocks))


LOGIT_MARGIN = 1e-6
"""What is kept from 0 and 1, where a logit has no end."""


def logits(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels in [0, 1], (batch, dim), spread over the real line; the log of how much each was stretched, (batch,)."""
    inner = LOGIT_MARGIN + (1 - 2 * LOGIT_MARGIN) * pixels
    x = inner.log() - (-inner).log1p()
    stretch = -inner.log() - (-inner).log1p() + math.log(1 - 2 * LOGIT_MARGIN)
    return x, stretch.sum(dim=1)


def bits_per_dim(log_density: Tensor, dim: int, levels: int) -> Tensor:
    """Of densities of pixels in [0, 1] in nats, whose cells are 1 / levels wide."""
    return (math.log(levels) - log_density / dim) / math.log(2)
