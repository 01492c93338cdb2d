"""A function traced as a whole by torch.compile, whose code is then called without the guards."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType
from typing import Any
from warnings import WarningMessage, catch_warnings, filterwarnings, simplefilter, warn_explicit
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from symplectic_adjoint._torch_internals import (
    compile_graph,
    compiler_config,
    compiler_errors,
)
from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.call_counters import CallCounters

INDUCTOR_OPTIONS = {"cpp_wrapper": True}
"""Call the kernels from C++: a wrapper in Python costs 100 us a call."""


class TracedFunction:
    """A function of (constants, tensors), retraced when its constants or the kinds of its tensors differ."""

    def __init__(self, fn: Callable[..., Any], name: str):
        # A separate code object: torch.compile keeps its cache and its recompilation limit by code object.
        fn = FunctionType(fn.__code__.replace(co_name=name), fn.__globals__, name, fn.__defaults__, fn.__closure__)
        self._last_run: _CompiledGraph | None = None
        self._refusal: str | None = None
        self.compilations = self.checked = 0
        """How many graphs were compiled, and how many of them were known to be free of counters' values."""
        self._guarded: Callable[..., Any] = torch.compile(fn, fullgraph=True, dynamic=False, backend=self._backend)

    def bind(
        self, constants: tuple[Any, ...], tensors: Sequence[Tensor], counters: CallCounters, calls: int
    ) -> tuple[Sequence[Any], "BoundCode"]:
        """Return the results for these tensors, and the code to call with other tensors like them.

        No two of the tensors may be the same object. calls: how often func is called. Raises UnsupportedCombination if
        func cannot be traced, or has side effects besides its counters.
        """
        FailOnRecompileLimitHit, TorchDynamoException = compiler_errors()
        self._last_run = None
        settings = {"trace_autograd_ops": True, "side_effect_replay_policy": "warn"}
        with compiler_config().patch(settings), torch.no_grad(), catch_warnings(record=True) as warned:
            simplefilter("ignore", DeprecationWarning)  # torch warns about its own calls while it compiles
            filterwarnings("always", message="While compiling, we found certain side effects")
            try:
                with counters.traced(calls):
                    results = self._guarded(constants, tensors)
            except FailOnRecompileLimitHit as error:
                raise UnsupportedCombination(
                    "compile=True: something in func, most often a number, differs in every solve, and each value "
                    "would be compiled anew: make it a buffer (a 0-dim tensor) of func's module"
                ) from error
            except TorchDynamoException as error:
                raise UnsupportedCombination(
                    f"compile=True: func cannot be compiled as a whole. {_first_lines(error)} Leave compile out, or "
                    "write func with tensor operations only, without side effects"
                ) from error
        self._refuse_side_effects(warned, counters)
        if self._last_run is None:
            raise UnsupportedCombination(
                "compile=True: torch.compile is disabled (by TORCHDYNAMO_DISABLE?): enable it, or leave compile out"
            )
        graph, self._last_run = self._last_run, None
        return results, graph.bind(tensors, results)

    def _refuse_side_effects(self, warned: Sequence[WarningMessage], counters: CallCounters) -> None:
        """Raise UnsupportedCombination if torch warned, now or before, that func changes more than its counters.

        Any other warning is given again.
        """
        counting = len({id(x.store) for x in counters.found})
        for x in warned:
            changed = side_effects_in(str(x.message))
            if not changed:
                warn_explicit(x.message, x.category, x.filename, x.lineno)
            elif len(changed) > counting:  # one of the objects that change has no counter
                self._refusal = ", ".join(changed)
        if self._refusal is not None:
            raise UnsupportedCombination(
                f"compile=True: func cannot be compiled as a whole, because it changes {self._refusal}, which compiled "
                "code would not do: leave compile out, or write func without side effects (counters may stay)"
            )

    def _backend(self, graph: torch.fx.GraphModule, examples: list[Any]) -> Callable[..., Any]:
        """Compile a traced graph with inductor, and record which graph runs."""
        self.compilations += 1
        compiled = _CompiledGraph(compile_graph(graph, examples, INDUCTOR_OPTIONS))

        def run(*inputs: Tensor) -> Any:
            self._last_run = compiled
            return compiled(*inputs)

        return run


class _CompiledGraph:
    """Inductor's code for one graph, with the inputs and outputs of its last guarded call."""

    def __init__(self, call: Callable[..., Any]):
        self.call = call
        self._inputs: list[Tensor] = []
        self._outputs: list[Any] = []

    def __call__(self, *inputs: Tensor) -> Any:
        self._inputs = list(inputs)
        self._outputs = list(self.call(*inputs))
        return self._outputs

    def bind(self, tensors: Sequence[Tensor], results: Sequence[Any]) -> "BoundCode":
        """Return the code with func's own tensors as fixed inputs.

        Inputs and outputs are matched by identity: inputs to the caller's tensors, results to the code's outputs.
        """
        tensor_at = {id(x): i for i, x in enumerate(tensors)}
        output_at = {id(x): i for i, x in enumerate(self._outputs)}
        placements = [(at, tensor_at[id(x)]) for at, x in enumerate(self._inputs) if id(x) in tensor_at]
        own = [None if id(x) in tensor_at else x for x in self._inputs]
        outputs = [output_at.get(id(x)) if isinstance(x, Tensor) else None for x in results]
        if any(isinstance(x, Tensor) and i is None for x, i in zip(results, outputs, strict=True)):
            raise UnsupportedCombination("compile=True: func returns a tensor that it did not compute from y")
        constants = [None if isinstance(x, Tensor) else x for x in results]
        self._inputs, self._outputs = [], []
        return BoundCode(self.call, own, placements, outputs, constants)


class BoundCode:
    """Compiled code bound to func's own tensors (parameters, buffers), valid for one pass and without a graph.

    own: every input of the code, None where the caller's tensors go. placements: (input, caller's tensor) by index.
    outputs: for each result, the index of the code's output, or None if the result is the entry of constants.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        own: Sequence[Tensor | None],
        placements: Sequence[tuple[int, int]],
        outputs: Sequence[int | None],
        constants: Sequence[Any],
    ):
        self._call, self._own, self._placements = call, own, placements
        self._outputs, self._constants = outputs, constants

    def require_parameters_among(self, params: Sequence[Tensor]) -> None:
        """Raise UnsupportedCombination if func reaches a trainable tensor that is not one of params."""
        known = {id(p) for p in params}
        for x in self._own:
            if x is not None and x.requires_grad and id(x) not in known:
                raise UnsupportedCombination(
                    f"compile=True: func reaches a tensor of shape {tuple(x.shape)} that requires a gradient, but not "
                    "as a parameter of its module: make it a parameter, or leave compile out"
                )

    def __call__(self, tensors: Sequence[Tensor]) -> list[Any]:
        inputs = list(self._own)
        for at, i in self._placements:
            inputs[at] = tensors[i]
        computed = self._call(*inputs)
        return [x if i is None else computed[i] for i, x in zip(self._outputs, self._constants, strict=True)]


def _first_lines(error: Exception) -> str:
    text = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(text[:2])


def side_effects_in(warning: str) -> list[str]:
    """Return what a traced function changes, as the tracer's warning names it; an empty list for any other warning.

    The tracer's name of func, the first of a traced function's constants, is replaced by "func".
    """
    _, found, sources = warning.partition("certain side effects happened")
    if not found:
        return []
    names = re.findall(r"""(?:"([^"]*)"|'([^']*)')(?=[,\]])""", sources)
    return [_readable(a or b) for a, b in names] or [sources]


def _readable(source: str) -> str:
    """Return the tracer's name of an object as a user would write it."""
    source = source.replace("L['constants'][0]", "func")
    source = re.sub(r"^G\['__import_(\w+)'\]", lambda m: f"a global of {m[1].replace('_dot_', '.')}", source)
    return re.sub(r"\._modules\['(\w+)'\]", r".\1", source)


_TRACED: WeakKeyDictionary[Any, dict[Any, TracedFunction]] = WeakKeyDictionary()
"""Traced functions by func's module or code, so that a training loop compiles once."""


def traced_function(fn: Callable[..., Any], func: Any, key: Any) -> TracedFunction:
    """Return the cached TracedFunction of fn for func and key, which traces nothing until it is bound."""
    of_func = _TRACED.setdefault(cache_owner(func), {})
    if (fn, key) not in of_func:
        of_func[fn, key] = TracedFunction(fn, f"{fn.__name__}_{len(of_func)}")
    return of_func[fn, key]


def cache_owner(func: Any) -> Any:
    """Return the object under which results about func are cached: its module, or else the code of its function.

    A lambda or a bound method is a new object in each solve; its code or its module is not.
    """
    while isinstance(func, partial):
        func = func.func
    instance = getattr(func, "__self__", None)
    if isinstance(func, nn.Module) or isinstance(instance, nn.Module):
        return func if isinstance(func, nn.Module) else instance
    function = getattr(func, "__func__", func)
    kind = type(function)
    return getattr(function, "__code__", getattr(kind.__call__, "__code__", kind))
