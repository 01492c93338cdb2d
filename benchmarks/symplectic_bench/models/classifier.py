"""An image classifier with an ODE block in place of residual blocks.

Chen, Rubanova, Bettencourt and Duvenaud, Neural Ordinary Differential Equations, NeurIPS 2018; Zhuang et al., Adaptive
Checkpoint Adjoint Method, ICML 2020, whose blocks normalise their convolutions.
"""

import torch
from torch import Tensor, nn

from symplectic_bench.models.integrate import UNIT_TIME, Integrate

GROUPS = 8
"""Groups of every group normalisation."""


class BlockField(nn.Module):
    """The field f(t, h), h of (batch, channels, height, width): two convolutions with the time as one more channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, channels) for _ in range(3))
        self.layers = nn.ModuleList(nn.Conv2d(channels + 1, channels, kernel_size=3, padding=1) for _ in range(2))

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        time = t.to(h).expand(len(h), 1, *h.shape[2:])
        for norm, layer in zip(self.norms, self.layers, strict=False):
            h = layer(torch.cat([torch.relu(norm(h)), time], dim=1))
        return self.norms[-1](h)


class Classifier(nn.Module):
    """Maps images, (batch, 1, size, size), to logits, (batch, classes). channels must be a multiple of GROUPS."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, kernel_size=3, padding=1)
        self.block = BlockField(channels)
        self.head = nn.Sequential(
            nn.GroupNorm(GROUPS, channels),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * channels, classes),
        )

    def forward(self, images: Tensor, integrate: Integrate) -> Tensor:
        return self.head(integrate(self.block, self.stem(images), UNIT_TIME)[-1])
