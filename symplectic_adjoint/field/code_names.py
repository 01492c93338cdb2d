"""The names that a Python function reads and assigns, found in its code."""

import dis
from dataclasses import dataclass
from functools import cached_property
from types import CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from symplectic_adjoint.field.held_values import is_kind, own_attributes

_LOADS_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
_ASSIGNS_GLOBAL = ("STORE_GLOBAL", "DELETE_GLOBAL")
_ASSIGNS_VARIABLE = ("STORE_DEREF", "DELETE_DEREF")

_BINARY = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
_OTHERS = (
    *("call", "getattr", "getattribute", "getitem", "contains", "len", "iter", "next", "reversed", "enter", "exit"),
    *("bool", "int", "float", "index", "neg", "pos", "abs", "invert", "array", "torch_function"),
)
_OPERATORS = frozenset(f"__{x}__" for x in (*_BINARY, *(f"r{x}" for x in _BINARY), *_OTHERS))
"""The methods that Python calls for a name or an operator in the code, without naming them there."""


@dataclass(frozen=True)
class CodeNames:
    """The names in a function's code and in the functions defined inside it.

    attributes: attributes read, and strings that may name one or be the key of a dict.
    """

    globals: frozenset[str]
    assigned_globals: frozenset[str]
    assigned_variables: frozenset[str]
    attributes: frozenset[str]

    @classmethod
    def of(cls, code: CodeType) -> "CodeNames":
        """Return the names in this code, which are collected once."""
        if code not in _KNOWN:
            _KNOWN[code] = cls._collected(code)
        return _KNOWN[code]

    @classmethod
    def _collected(cls, code: CodeType) -> "CodeNames":
        found = [(x.opname, x.argval) for x in dis.get_instructions(code)]
        strings = {x for x in code.co_consts if isinstance(x, str) and x.isidentifier()}
        inner = [cls.of(x) for x in code.co_consts if isinstance(x, CodeType)]
        return cls(
            frozenset(x for name, x in found if name in _LOADS_GLOBAL).union(*(x.globals for x in inner)),
            frozenset(x for name, x in found if name in _ASSIGNS_GLOBAL).union(*(x.assigned_globals for x in inner)),
            frozenset(x for name, x in found if name in _ASSIGNS_VARIABLE).union(
                *(x.assigned_variables for x in inner)
            ),
            frozenset({*code.co_names, *strings}).union(*(x.attributes for x in inner)),
        )


_KNOWN: WeakKeyDictionary[CodeType, CodeNames] = WeakKeyDictionary()


def attributes_read(kind: type, entry: frozenset[str]) -> frozenset[str]:
    """Return the attributes that objects of this class may read when operators or methods in `entry` are called."""
    of_kind = _READ.setdefault(kind, {})
    if entry not in of_kind:
        names, seen = {*entry, *_OPERATORS}, set[int]()
        pending = list(names)
        while pending:
            name = pending.pop()
            for base in kind.__mro__:  # a method may call the one that it overrides
                code = _code_of(vars(base).get(name))
                if code is not None and id(code) not in seen:
                    seen.add(id(code))
                    new = CodeNames.of(code).attributes - names
                    names |= new
                    pending += new
        of_kind[entry] = frozenset(names)
    return of_kind[entry]


_READ: WeakKeyDictionary[type, dict[frozenset[str], frozenset[str]]] = WeakKeyDictionary()


def _code_of(member: Any) -> CodeType | None:
    """Return the code of a method or property; None for anything else."""
    seen: list[Any] = []
    while not any(member is x for x in seen):  # a function may wrap itself
        seen.append(member)
        if is_kind(member, property):
            member = member.fget
        elif is_kind(member, (classmethod, staticmethod)):
            member = member.__func__
        elif is_kind(member, cached_property):
            member = member.func
        else:
            member = (own_attributes(member) or {}).get("__wrapped__", member)
    return member.__code__ if is_kind(member, FunctionType) else None
