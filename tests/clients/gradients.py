"""What a test compares: the gradients of a model's parameters by name."""


def gradients_of(*modules, **tensors):
    """Return the gradient of each parameter of the modules, and of each tensor, by name."""
    return {
        **{f"{i}.{name}": p.grad for i, module in enumerate(modules) for name, p in module.named_parameters()},
        **{name: tensor.grad for name, tensor in tensors.items()},
    }
