"""compile=True: the f calls of a step, and the VJP of one stage, as machine code.

torch.compile traces func as a whole and guards its assumptions. Each pass over the steps checks the guards once and
then calls the code directly, because checking them takes as long as a small network. Step sizes, times and coefficients
are inputs of the code, so that all steps share it.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from types import FunctionType
from typing import Any
from warnings import catch_warnings, simplefilter
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from symplectic_adjoint._torch_internals import (
    compile_graph,
    compiler_config,
    compiler_errors,
    find_cpp_compiler,
    require_compiler_names,
)
from symplectic_adjoint.errors import CompilerNotFound, UnsupportedCombination
from symplectic_adjoint.methods.tableau import ButcherTableau, FloatTerms

INDUCTOR_OPTIONS = {"cpp_wrapper": True}
"""Call the kernels from C++: a wrapper in Python costs 100 us a call."""


@cache
def require_compiler() -> None:
    """Raise CompilerNotFound if there is no C++ compiler, before anything is traced.

    Raises UnsupportedCombination if PyTorch is older than 2.13, ImportError if it lacks a private name that is needed.
    """
    if torch.__version__ < "2.13":  # 2.11 has the setting trace_autograd_ops too, and cannot trace
        raise UnsupportedCombination(f"compile=True needs PyTorch 2.13 or later, got {torch.__version__}")
    require_compiler_names()
    try:
        find_cpp_compiler()
    except Exception as error:
        raise CompilerNotFound(
            f"compile=True needs a C++ compiler, and none was found ({error}): install g++ or clang++, or name one in "
            "the environment variable CXX before Python starts; or leave compile out"
        ) from error


class TracedFunction:
    """A function of (constants, tensors), retraced when its constants or the kinds of its tensors differ."""

    def __init__(self, fn: Callable[..., Any], name: str):
        # A separate code object: torch.compile keeps its cache and its recompilation limit by code object.
        fn = FunctionType(fn.__code__.replace(co_name=name), fn.__globals__, name, fn.__defaults__, fn.__closure__)
        self._last_run: _CompiledGraph | None = None
        self._guarded: Callable[..., Any] = torch.compile(fn, fullgraph=True, dynamic=False, backend=self._backend)

    def bind(self, constants: tuple[Any, ...], tensors: Sequence[Tensor]) -> tuple[Sequence[Any], "BoundCode"]:
        """Return the results for these tensors, and the code to call with other tensors like them.

        No two of the tensors may be the same object. Raises UnsupportedCombination if func cannot be traced.
        """
        FailOnRecompileLimitHit, TorchDynamoException = compiler_errors()
        self._last_run = None
        settings = {"trace_autograd_ops": True, "side_effect_replay_policy": "error"}
        with compiler_config().patch(settings), torch.no_grad(), catch_warnings():
            simplefilter("ignore", DeprecationWarning)  # torch warns about its own calls while it compiles
            try:
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
        if self._last_run is None:
            raise UnsupportedCombination(
                "compile=True: torch.compile is disabled (by TORCHDYNAMO_DISABLE?): enable it, or leave compile out"
            )
        graph, self._last_run = self._last_run, None
        return results, graph.bind(tensors, results)

    def _backend(self, graph: torch.fx.GraphModule, examples: list[Any]) -> Callable[..., Any]:
        """Compile a traced graph with inductor, and record which graph runs."""
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


# ---- the traced functions ----


def _add_terms(start: Tensor | None, h: Tensor, terms: FloatTerms, ks: Sequence[Tensor]) -> Tensor:
    total = start
    for i, weight in terms:
        term = (h * weight).to(ks[i].dtype) * ks[i]
        total = term if total is None else total + term
    assert total is not None
    return total


def _as_output(x: Tensor) -> Tensor:
    """Return a copy that is not an input, with the strides that the code expects when it is an input later."""
    return x.clone(memory_format=torch.contiguous_format)


def _step(constants: tuple[Any, ...], tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Return the new k_i, y+ and the error estimates of a step.

    tensors: scalars = (h, t_1 .. t_rows), y, and k_1 if it is known.
    """
    func, time_dtype, A, b, errors, s, rows = constants
    scalars, y, *ks = tensors
    known, h, end = len(ks), scalars[0], []
    for i in range(known, rows):
        Y = end[0] if i == s else _add_terms(y, h, A[i], ks)
        ks.append(_as_output(func(scalars[1 + i].to(time_dtype), Y)))
        if i == s - 1:
            end = [_as_output(_add_terms(y, h, b, ks))]
    return (*ks[known:], *end, *(_add_terms(None, h, terms, ks) for terms in errors))


def _stage_vjp(constants: tuple[Any, ...], tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Return which of theta f depends on, l_i, k_i and, with times, tau_i and w_i. Add to theta_bar in place.

    tensors: scalars = (t_i, h a_i1 .., h b_i, h a_2i ..), y, k_1 .. k_{s-1}, lam, l_2 .. l_s, theta_bar. All stages
    share this code, because the coefficients are inputs, zero if a stage has no such term.
    """
    func, time_dtype, params, s, with_time = constants
    scalars, y, *tensors = tensors
    n = s - 1
    ks, lam, ls, theta_bar = tensors[:n], tensors[n], tensors[n + 1 : 2 * n + 1], tensors[2 * n + 1 :]
    Y, w = y, scalars[1 + n].to(y.dtype) * lam
    for j in range(n):
        Y = Y + scalars[1 + j].to(y.dtype) * ks[j]
        w = w + scalars[2 + n + j].to(y.dtype) * ls[j]
    with torch.enable_grad():
        Y = Y.detach().requires_grad_()
        time = scalars[0].to(time_dtype).detach()
        if with_time:
            time = time.requires_grad_()
        k = func(time, Y)
        inputs = (Y, time, *params) if with_time else (Y, *params)
        bars = torch.autograd.grad(k, inputs, w, allow_unused=True) if k.requires_grad else (None,) * len(inputs)
    of_params = bars[len(inputs) - len(params) :]
    for total, bar in zip(theta_bar, of_params, strict=True):
        if bar is not None:
            total.add_(bar)
    l = torch.zeros_like(w) if bars[0] is None else _as_output(bars[0])  # noqa: E741 (the paper's name)
    used = tuple(bar is not None for bar in of_params)
    k = _as_output(k.detach())
    if not with_time:
        return used, l, k
    tau = torch.zeros_like(time) if bars[1] is None else bars[1].clone()
    return used, l, k, tau, _as_output(w)


class CompiledSteps:
    """Compiled steps and stage VJPs for one pass; the first call of each kind binds code to func's current tensors."""

    def __init__(self, func: Any, tableau: ButcherTableau, like: Tensor, time_dtype: torch.dtype):
        self._func, self._tableau, self._like, self._time_dtype = func, tableau, like, time_dtype
        self._bound: dict[Any, BoundCode] = {}
        self._params: Sequence[Tensor] = ()
        self._zero = torch.zeros_like(like, memory_format=torch.contiguous_format)
        self._coefficients = _stage_coefficients(tableau)

    def for_another_pass(self) -> "CompiledSteps":
        """Return a copy without bound code: func may use other tensors in another pass."""
        return CompiledSteps(self._func, self._tableau, self._like, self._time_dtype)

    def evaluate(
        self, h: float, times: Sequence[float], y: Tensor, ks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor | None, list[Tensor]]:
        """Return the k_i of a step that are not known yet, its y+ and its error estimates.

        times: those of all rows up to the last one to evaluate. ks: the first k_i, if known already. y+ is None and
        there are no error estimates if they need more rows.
        """
        terms, s, rows, known = self._tableau.terms, self._tableau.stages, len(times), len(ks)
        errors = terms.errors if all(e[-1][0] < rows for e in terms.errors) else ()
        scalars = torch.tensor([h, *times], dtype=torch.float64, device=self._like.device)
        constants = (self._func, self._time_dtype, terms.A, terms.b, errors, s, rows)
        key = (known, rows)
        computed = self._run(_step, key, constants, [scalars, *_contiguous((y, *ks))])
        new = rows - known
        has_end = rows >= s
        return computed[:new], computed[new] if has_end else None, computed[new + has_end :]

    def stage_scalars(self, h: float, times: Sequence[float]) -> list[Tensor]:
        """Return the scalars of every stage of a step, as stage_vjp takes them: a float64 tensor of 2 s each."""
        table = [[t, *(h * a for a in row)] for t, row in zip(times, self._coefficients, strict=True)]
        return list(torch.tensor(table, dtype=torch.float64, device=self._like.device).unbind())

    def stage_vjp(
        self,
        scalars: Tensor,
        y: Tensor,
        ks: Sequence[Tensor],
        lam: Tensor,
        ls: Sequence[Tensor | None],
        params: Sequence[Tensor],
        theta_bar: Sequence[Tensor],
        *,
        with_time: bool,
    ) -> list[Any]:
        """Return which of params f depends on, l_i, k_i and, with_time, tau_i and w_i. Add to theta_bar in place.

        scalars: those of stage i. ks: k_1 .. k_{i-1}. ls: l_1 .. l_s, None for those that are unknown or zero. Raises
        UnsupportedCombination if func reaches a trainable tensor that is not one of params.
        """
        s, zero = self._tableau.stages, self._zero
        before = [*ks[: s - 1], *[zero] * (s - 1 - len(ks))]
        after = [zero if l is None else l for l in ls[1:s]]  # noqa: E741 (the paper's name)
        constants = (self._func, self._time_dtype, tuple(params), s, with_time)
        self._params = params
        states = _contiguous((y, *before, lam, *after))
        return self._run(_stage_vjp, with_time, constants, [scalars, *states, *theta_bar])

    def _run(
        self, fn: Callable[..., Any], key: Any, constants: tuple[Any, ...], tensors: Sequence[Tensor]
    ) -> list[Any]:
        bound = self._bound.get((fn, key))
        if bound is not None:
            return bound(tensors)
        traced = traced_function(fn, self._func, (self._tableau.name, self._like.dtype, self._like.shape, key))
        distinct = [x.detach() for x in tensors]  # one object passed twice would be traced as one input
        results, bound = traced.bind(constants, distinct)
        if fn is _stage_vjp:
            bound.require_parameters_among(self._params)
        self._bound[fn, key] = bound
        return list(results)


def _contiguous(states: Sequence[Tensor]) -> list[Tensor]:
    """Return states with the strides that the code was compiled for, from which those of y0 may differ."""
    return [x.contiguous() for x in states]


def _stage_coefficients(tableau: ButcherTableau) -> list[list[float]]:
    """Return, for each stage i, a_i1 .. a_i,s-1, b_i, a_2i .. a_si."""
    s, A, b = tableau.stages, tableau.floats.A, tableau.floats.b
    rows = []
    for i in range(s):
        before = [A[i][j] if j < i else 0.0 for j in range(s - 1)]
        after = [A[j][i] if j > i else 0.0 for j in range(1, s)]
        rows.append([*before, b[i], *after])
    return rows
