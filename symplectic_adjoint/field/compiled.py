"""compile=True: the f calls of a step, and one transposed f, as machine code.

torch.compile traces func without a break and guards what it took for granted, once in each pass over the steps; all
other calls of the pass go straight to the code, because a guard takes as long as a small network. Step sizes, times
and coefficients are inputs of the code, so that no step is compiled for its own numbers.
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

OPTIONS = {"cpp_wrapper": True}
"""A wrapper in C++ around the kernels: that in Python costs 100 us a call."""


@cache
def require_compiler() -> None:
    """Raises CompilerNotFound where there is no C++ compiler, before anything is traced."""
    if not hasattr(compiler_config(), "trace_autograd_ops"):
        raise UnsupportedCombination(f"compile=True needs PyTorch 2.13 or later, got {torch.__version__}")
    require_compiler_names()
    try:
        find_cpp_compiler()
    except Exception as error:
        raise CompilerNotFound(
            f"compile=True needs a C++ compiler, and none was found ({error}): install g++ or clang++, or name one in "
            "the environment variable CXX before Python starts; or leave compile out"
        ) from error


class Traced:
    """A function of (constants, tensors), traced anew where its constants or the kinds of its tensors differ."""

    def __init__(self, fn: Callable[..., Any], name: str):
        # A code object of its own: what torch.compile has compiled, and how often it may, it counts by code object.
        fn = FunctionType(fn.__code__.replace(co_name=name), fn.__globals__, name, fn.__defaults__, fn.__closure__)
        self._ran: _Code | None = None
        self._guarded: Callable[..., Any] = torch.compile(fn, fullgraph=True, dynamic=False, backend=self._compiled)

    def bind(self, constants: tuple[Any, ...], tensors: Sequence[Tensor]) -> tuple[Sequence[Any], "Bound"]:
        """The results for these tensors, each an object of its own, and the code to call with others like them.

        Raises UnsupportedCombination where func cannot be traced.
        """
        FailOnRecompileLimitHit, TorchDynamoException = compiler_errors()
        self._ran = None
        settings = {"trace_autograd_ops": True, "side_effect_replay_policy": "error"}
        with compiler_config().patch(settings), torch.no_grad(), catch_warnings():
            simplefilter("ignore", DeprecationWarning)  # torch's own, of what it does while it compiles
            try:
                results = self._guarded(constants, tensors)
            except FailOnRecompileLimitHit as error:
                raise UnsupportedCombination(
                    "compile=True: something in func, a number most often, is another one in every solve, and each "
                    "would be compiled for itself: make it a buffer (a 0-dim tensor) of func's module"
                ) from error
            except TorchDynamoException as error:
                raise UnsupportedCombination(
                    f"compile=True: func cannot be compiled as a whole. {_first_lines(error)} Leave compile out, or "
                    "write func of tensor operations alone, without side effects"
                ) from error
        if self._ran is None:
            raise UnsupportedCombination("compile=True: torch.compile is switched off here (TORCHDYNAMO_DISABLE?)")
        code, self._ran = self._ran, None
        return results, code.bound(tensors, results)

    def _compiled(self, graph: torch.fx.GraphModule, examples: list[Any]) -> Callable[..., Any]:
        """The backend: what torch.compile has traced, as inductor's code, which is remembered when it is run."""
        code = _Code(compile_graph(graph, examples, OPTIONS))

        def run(*inputs: Tensor) -> Any:
            self._ran = code
            return code(*inputs)

        return run


class _Code:
    """Inductor's code of one graph, with the inputs and outputs of its last call through the guards."""

    def __init__(self, call: Callable[..., Any]):
        self.call = call
        self._inputs: list[Tensor] = []
        self._outputs: list[Any] = []

    def __call__(self, *inputs: Tensor) -> Any:
        self._inputs = list(inputs)
        self._outputs = list(self.call(*inputs))
        return self._outputs

    def bound(self, tensors: Sequence[Tensor], results: Sequence[Any]) -> "Bound":
        """Told apart by identity: which inputs are the caller's tensors, and which output each result is."""
        place = {id(x): i for i, x in enumerate(tensors)}
        made = {id(x): i for i, x in enumerate(self._outputs)}
        slots = [(at, place[id(x)]) for at, x in enumerate(self._inputs) if id(x) in place]
        own = [None if id(x) in place else x for x in self._inputs]
        outputs = [made.get(id(x)) if isinstance(x, Tensor) else None for x in results]
        if any(isinstance(x, Tensor) and i is None for x, i in zip(results, outputs, strict=True)):
            raise UnsupportedCombination("compile=True: func returns a tensor that it did not compute from y")
        constants = [None if isinstance(x, Tensor) else x for x in results]
        self._inputs, self._outputs = [], []
        return Bound(self.call, own, slots, outputs, constants)


class Bound:
    """Code with func's own tensors (parameters, buffers) as they are now, good for one pass and without a graph."""

    def __init__(
        self,
        call: Callable[..., Any],
        own: Sequence[Tensor | None],
        slots: Sequence[tuple[int, int]],
        outputs: Sequence[int | None],
        constants: Sequence[Any],
    ):
        self._call, self._own, self._slots = call, own, slots
        self._outputs, self._constants = outputs, constants

    def require_no_other(self, params: Sequence[Tensor]) -> None:
        """Raises UnsupportedCombination where func reaches a trainable tensor that is not one of these."""
        known = {id(p) for p in params}
        for x in self._own:
            if x is not None and x.requires_grad and id(x) not in known:
                raise UnsupportedCombination(
                    f"compile=True: func reaches a tensor of shape {tuple(x.shape)} that requires a gradient by "
                    "another way than as a parameter of its module: leave compile out, or make it one"
                )

    def __call__(self, tensors: Sequence[Tensor]) -> list[Any]:
        inputs = list(self._own)
        for at, i in self._slots:
            inputs[at] = tensors[i]
        made = self._call(*inputs)
        return [x if i is None else made[i] for i, x in zip(self._outputs, self._constants, strict=True)]


def _first_lines(error: Exception) -> str:
    text = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(text[:2])


_TRACED: WeakKeyDictionary[Any, dict[Any, Traced]] = WeakKeyDictionary()
"""By func's module or code, so that a training loop compiles once."""


def traced(fn: Callable[..., Any], func: Any, key: Any) -> Traced:
    mine = _TRACED.setdefault(owner_of(func), {})
    if (fn, key) not in mine:
        mine[fn, key] = Traced(fn, f"{fn.__name__}_{len(mine)}")
    return mine[fn, key]


def owner_of(func: Any) -> Any:
    """What is remembered of func is kept with this: a module, or else the code of a function."""
    while isinstance(func, partial):
        func = func.func
    instance = getattr(func, "__self__", None)
    if isinstance(func, nn.Module) or isinstance(instance, nn.Module):
        return func if isinstance(func, nn.Module) else instance
    function = getattr(func, "__func__", func)
    kind = type(function)
    return getattr(function, "__code__", getattr(kind.__call__, "__code__", kind))


# What is traced.


def _total(start: Tensor | None, h: Tensor, terms: FloatTerms, ks: Sequence[Tensor]) -> Tensor:
    for i, weight in terms:
        term = (h * weight).to(ks[i].dtype) * ks[i]
        start = term if start is None else start + term
    assert start is not None
    return start


def _own(x: Tensor) -> Tensor:
    """An output that is no input, and whose strides are those for which the code of the next call is made."""
    return x.clone(memory_format=torch.contiguous_format)


def _take_step(constants: tuple[Any, ...], tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """numbers = (h, t_1 .. t_rows), y, k_1 if it is known -> the new k_i, y+ and the error estimates."""
    func, real, A, b, errors, s, rows = constants
    numbers, y, *ks = tensors
    known, h, end = len(ks), numbers[0], []
    for i in range(known, rows):
        Y = end[0] if i == s else _total(y, h, A[i], ks)
        ks.append(_own(func(numbers[1 + i].to(real), Y)))
        if i == s - 1:
            end = [_own(_total(y, h, b, ks))]
    return (*ks[known:], *end, *(_total(None, h, terms, ks) for terms in errors))


def _pull_back(constants: tuple[Any, ...], tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """One f and its VJP, for any stage: the coefficients are inputs, and zero where a stage has no part.

    numbers = (t_i, h a_i1 .., h b_i, h a_2i ..), y, k_1 .. k_{s-1}, lam, l_2 .. l_s, theta_bar -> which of theta f
    depends on, l_i, and tau_i, k_i, w_i with times. Adds to theta_bar in place.
    """
    func, real, params, s, with_time = constants
    numbers, y, *tensors = tensors
    n = s - 1
    ks, lam, ls, theta_bar = tensors[:n], tensors[n], tensors[n + 1 : 2 * n + 1], tensors[2 * n + 1 :]
    Y, w = y, numbers[1 + n].to(y.dtype) * lam
    for j in range(n):
        Y = Y + numbers[1 + j].to(y.dtype) * ks[j]
        w = w + numbers[2 + n + j].to(y.dtype) * ls[j]
    with torch.enable_grad():
        Y = Y.detach().requires_grad_()
        time = numbers[0].to(real).detach()
        if with_time:
            time = time.requires_grad_()
        k = func(time, Y)
        inputs = (Y, time, *params) if with_time else (Y, *params)
        bars = torch.autograd.grad(k, inputs, w, allow_unused=True) if k.requires_grad else (None,) * len(inputs)
    of_params = bars[len(inputs) - len(params) :]
    for total, bar in zip(theta_bar, of_params, strict=True):
        if bar is not None:
            total.add_(bar)
    l = torch.zeros_like(w) if bars[0] is None else _own(bars[0])  # noqa: E741 (the paper's name)
    used = tuple(bar is not None for bar in of_params)
    if not with_time:
        return used, l
    tau = torch.zeros_like(time) if bars[1] is None else bars[1].clone()
    return used, l, tau, _own(k.detach()), _own(w)


class CompiledSteps:
    """The steps of one pass, from the first call that binds the code to func's tensors as they are."""

    def __init__(self, func: Any, tableau: ButcherTableau, like: Tensor, real: torch.dtype):
        self._func, self._tableau, self._like, self._real = func, tableau, like, real
        self._bound: dict[Any, Bound] = {}
        self._params: Sequence[Tensor] = ()
        self._zero = torch.zeros_like(like, memory_format=torch.contiguous_format)
        self._table = _coefficients(tableau)

    def again(self) -> "CompiledSteps":
        """The same for another pass, in which func's tensors may be others."""
        return CompiledSteps(self._func, self._tableau, self._like, self._real)

    def evaluate(
        self, h: float, times: Sequence[float], y: Tensor, ks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor | None, list[Tensor]]:
        """A step of h from y, its rows evaluated at these times, of which the first k_i are known already.

        Returns the other k_i; and y+ and the error estimates, as far as so many rows give them.
        """
        terms, s, rows, known = self._tableau.terms, self._tableau.stages, len(times), len(ks)
        errors = terms.errors if all(e[-1][0] < rows for e in terms.errors) else ()
        numbers = torch.tensor([h, *times], dtype=torch.float64, device=self._like.device)
        constants = (self._func, self._real, terms.A, terms.b, errors, s, rows)
        key = (known, rows)
        made = self._run(_take_step, key, constants, [numbers, *_in_a_row((y, *ks))])
        new = rows - known
        has_end = rows >= s
        return made[:new], made[new] if has_end else None, made[new + has_end :]

    def numbers(self, h: float, times: Sequence[float]) -> list[Tensor]:
        """The coefficients of every stage of a step of h, for pull_back."""
        table = [[t, *(h * a for a in row)] for t, row in zip(times, self._table, strict=True)]
        return list(torch.tensor(table, dtype=torch.float64, device=self._like.device).unbind())

    def pull_back(
        self,
        numbers: Tensor,
        y: Tensor,
        ks: Sequence[Tensor],
        lam: Tensor,
        ls: Sequence[Tensor | None],
        params: Sequence[Tensor],
        theta_bar: Sequence[Tensor],
        *,
        with_time: bool,
    ) -> list[Any]:
        s, zero = self._tableau.stages, self._zero
        before = [*ks[: s - 1], *[zero] * (s - 1 - len(ks))]
        after = [zero if l is None else l for l in ls[1:s]]  # noqa: E741 (the paper's name)
        constants = (self._func, self._real, tuple(params), s, with_time)
        self._params = params
        states = _in_a_row((y, *before, lam, *after))
        return self._run(_pull_back, with_time, constants, [numbers, *states, *theta_bar])

    def _run(
        self, fn: Callable[..., Any], key: Any, constants: tuple[Any, ...], tensors: Sequence[Tensor]
    ) -> list[Any]:
        bound = self._bound.get((fn, key))
        if bound is not None:
            return bound(tensors)
        where = traced(fn, self._func, (self._tableau.name, self._like.dtype, self._like.shape, key))
        distinct = [x.detach() for x in tensors]  # one object in two places would be one input
        results, bound = where.bind(constants, distinct)
        if fn is _pull_back:
            bound.require_no_other(self._params)
        self._bound[fn, key] = bound
        return list(results)


def _in_a_row(states: Sequence[Tensor]) -> list[Tensor]:
    """As the code was made for: y0 may have other strides than the states that follow it."""
    return [x.contiguous() for x in states]


def _coefficients(tableau: ButcherTableau) -> list[list[float]]:
    """Row i: a_i1 .. a_i,s-1, b_i, a_2i .. a_si."""
    s, A, b = tableau.stages, tableau.floats.A, tableau.floats.b
    rows = []
    for i in range(s):
        before = [A[i][j] if j < i else 0.0 for j in range(s - 1)]
        after = [A[j][i] if j > i else 0.0 for j in range(1, s)]
        rows.append([*before, b[i], *after])
    return rows
