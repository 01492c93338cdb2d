"""The structures of generated states."""

import torch

# The shapes of the parts, in the structure.
STATES = {
    "0-dim": (),
    "tensor": (4,),
    "batch": (2, 3),
    "tuple": ("tuple", (2,), (1, 2)),
    "list": ("list", (3,), (2,)),
    "dict": {"x": (2,), "v": (2,)},
    "nest": {"z": ("tuple", (2,), ("list", (1,), ())), "log": (2,)},
}


def build(shape, make):
    """Return the structure with make(shape) for each part."""
    if isinstance(shape, dict):
        return {name: build(part, make) for name, part in shape.items()}
    if shape and isinstance(shape[0], str):
        parts = [build(part, make) for part in shape[1:]]
        return parts if shape[0] == "list" else tuple(parts)
    return make(shape)


def draw_state(name, dtype, generator):
    """Return a state of this structure, drawn in the dtype of the truth and rounded to dtype."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return build(STATES[name], lambda shape: torch.randn(shape, dtype=wide, generator=generator).mul(0.7).to(dtype))


def mapped(change, state):
    """Return the structure with change(part) for each part."""
    if isinstance(state, torch.Tensor):
        return change(state)
    if isinstance(state, dict):
        return {name: mapped(change, part) for name, part in state.items()}
    return type(state)(mapped(change, part) for part in state)
