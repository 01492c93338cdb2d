"""Autocast, which casts the operations of func; those of the solver: see matrix_products.py."""

import torch


def autocast_is_on(device_type: str) -> bool:
    """Return whether autocast is on for devices of this type."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
