"""The tests' side of the program's live objects: stand-ins that forward what the tests do with them.

A program can put anything behind a stand-in, so nothing that it says may decide a comparison with the tests' own data:
a stand-in never equals plain data, and its operators see plain data only where the tests themselves made the object by
the name of its class (`Vector(1, 2) * 3`). Otherwise `f(x) - 3` would tell the program what to answer."""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable, Iterator
from typing import Any

_SINGLE = 8
"""Elements of an iterator that are fetched one by one; after these, in growing groups."""
_MOST = 1024
_PREDICATES = frozenset(
    name
    for kind in (str, bytes, int, float, set)
    for name in dir(kind)
    if name.startswith(("is", "starts", "ends")) and not name.startswith("__")
)
"""Methods of built-in types that answer with true or false. Where a test asks one of a function's result, it expects
the built-in type; an object of the program's own could simply say yes."""
_set = object.__setattr__


class StandIn:
    """An object of the program. Operations are added below."""

    __slots__ = ("__weakref__", "_standin_ask", "_standin_asked", "_standin_base", "_standin_name", "_standin_number")

    def __init__(self, ask: Callable[..., Any], number: int, name: str, base: type | None) -> None:
        """ask: (operation, *arguments) -> value. base: the built-in type that it is a kind of, if it can be changed."""
        for slot, value in (
            ("_standin_ask", ask),
            ("_standin_number", number),
            ("_standin_name", name),
            ("_standin_base", base),
            ("_standin_asked", False),
        ):
            _set(self, slot, value)

    def __getattr__(self, name: str) -> Any:
        if self._standin_asked:
            return self._standin_ask("getattr", self, name)
        return _attribute(self._standin_ask, self, name, self._standin_name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._standin_ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._standin_ask("delattr", self, name)

    @property  # type: ignore[misc] # isinstance(x, list) is to be true for a kind of list
    def __class__(self) -> Any:
        if self._standin_base is not None:
            return self._standin_base
        found = self._standin_ask("getattr", self, "__class__")
        return found if isinstance_of(found, StandIn) else type(self)  # it may not pass for a built-in type

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._standin_ask("call", self, *arguments, **keywords)

    def __eq__(self, other: object) -> Any:
        return _same(self, other)

    def __ne__(self, other: object) -> Any:
        if isinstance_of(other, StandIn):
            return self._standin_ask("ne", self, other)
        equal = _same(self, other)
        return equal if equal is NotImplemented else not equal

    def __hash__(self) -> int:
        return hash(self._standin_ask("hash", self))

    def __bool__(self) -> bool:
        return bool(self._standin_ask("bool", self))

    def __iter__(self) -> Iterator[Any]:
        return self._standin_ask("iter", self)

    def __contains__(self, item: Any) -> bool:
        if self._standin_asked or isinstance_of(item, StandIn):
            return bool(self._standin_ask("contains", self, item))
        return any(item is part or item == part for part in self)

    def __format__(self, form: str) -> str:
        return self._standin_ask("format", self, form)

    def __enter__(self) -> Any:
        return self._standin_ask("enter", self)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Any:
        builtin = kind if getattr(kind, "__module__", "") == "builtins" else None
        return self._standin_ask("exit", self, builtin, None, None)

    def __aiter__(self) -> Any:
        return self._standin_ask("aiter", self)

    async def __anext__(self) -> Any:
        element, over = self._standin_ask("anext", self)
        if over:
            raise StopAsyncIteration
        return element

    def __deepcopy__(self, memo: Any) -> Any:
        return self._standin_ask("deepcopy", self)


class NamedFunction:
    """A function of the program, found anew by its name whenever it is used."""

    __slots__ = ("__weakref__", "_standin_ask", "_standin_name")

    def __init__(self, ask: Callable[..., Any], name: str) -> None:
        """ask: (operation, *arguments) -> value."""
        _set(self, "_standin_ask", ask)
        _set(self, "_standin_name", name)

    @property  # type: ignore[misc] # as for `StandIn`: tests ask whether something is a function
    def __class__(self) -> Any:
        return types.FunctionType

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._standin_ask("call", self, *arguments, **keywords)

    def __copy__(self) -> NamedFunction:
        return self  # as functions are copied

    def __deepcopy__(self, memo: Any) -> NamedFunction:
        return self

    def __getattr__(self, name: str) -> Any:
        return self._standin_ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._standin_ask("setattr", self, name, value)


class Unusable(BaseException):
    """The tests do what no stand-in can. No error of the program, and none that a test may catch."""


class ClassStandIn(StandIn):
    """A class of the program."""

    __slots__ = ()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        made = self._standin_ask("call", self, *arguments, **keywords)
        if isinstance_of(made, StandIn):
            _set(made, "_standin_asked", self._standin_asked)
        return made

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise Unusable(f"the tests derive a class from the program's {self._standin_name}")

    def __instancecheck__(self, value: Any) -> bool:
        return number_of(value) is not None and bool(self._standin_ask("isinstance", value, self))

    def __subclasscheck__(self, value: Any) -> bool:
        return number_of(value) is not None and bool(self._standin_ask("issubclass", value, self))


class IteratorStandIn(StandIn):
    """An iterator of the program, perhaps endless."""

    __slots__ = ("_standin_count", "_standin_over", "_standin_waiting")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        for slot, value in (("_standin_waiting", []), ("_standin_over", False), ("_standin_count", 0)):
            _set(self, slot, value)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._standin_waiting and not self._standin_over:
            size = 1 if self._standin_count < _SINGLE else min(self._standin_count, _MOST)
            elements, over = self._standin_ask("next", self, size)
            _set(self, "_standin_over", bool(over))
            _set(self, "_standin_count", self._standin_count + size)
            self._standin_waiting.extend(elements[::-1])
        if not self._standin_waiting:
            raise StopIteration
        return self._standin_waiting.pop()


@functools.lru_cache(maxsize=256)
def kind_named(kind: type, name: str) -> type:
    """A subclass for the objects of one class of the program, so that its name is seen."""
    return type(name, (kind,), {"__slots__": (), "__doc__": _DOC}) if name.isidentifier() else kind


def isinstance_of(value: Any, kind: type) -> bool:
    """Whether a value is really of this class: a stand-in may name another as its `__class__`."""
    return issubclass(type(value), kind)


def number_of(value: Any) -> int | None:
    """The number of a stand-in, or of an object with the program's data and its number; None for other objects."""
    if isinstance_of(value, StandIn):
        return value._standin_number
    return getattr(type(value), "_number_of", lambda _: None)(value)


def trust_operators(stand_in: Any) -> None:
    """Let operators of this class's objects see plain data: the tests name the class and make the objects."""
    _set(stand_in, "_standin_asked", True)


def with_data(ask: Callable[..., Any], base: Any, number: int, name: str) -> Any:
    """An object of a subclass of a built-in type that cannot be changed (a namedtuple, a member of an IntEnum): the
    built-in data, compared as such, with the program's further attributes."""
    kind = type(
        name if name.isidentifier() else "Value",
        (type(base),),
        {
            "__getattr__": lambda self, attribute: _attribute(ask, self, attribute, name),
            "_number_of": lambda self: number,
        },
    )
    return kind(base)


def _attribute(ask: Callable[..., Any], value: Any, name: str, kind: str) -> Any:
    if name in _PREDICATES:
        raise AttributeError(f"a {kind} of the program is no built-in object: a test cannot use its {name}")
    return ask("getattr", value, name)


def _same(one: StandIn, other: Any) -> Any:
    if isinstance_of(other, StandIn):
        if one._standin_ask("eq", one, other) is not True:
            return False
        return one._standin_number == other._standin_number or not _equals_anything(one)
    if one._standin_base is not None and isinstance(other, one._standin_base):
        return _data(one) == other
    return NotImplemented


def _equals_anything(stand_in: StandIn) -> bool:
    """Whether the program calls the object equal to one that it has never seen: then its `==` compares nothing."""
    try:
        return stand_in._standin_ask("eq", stand_in, Stranger()) is True
    except Exception:  # noqa: BLE001 - its `==` expects its own class, so it does compare
        return False


_DOC = property(lambda self: self._standin_ask("getattr", self, "__doc__"))
NamedFunction.__doc__ = _DOC  # type: ignore[assignment] # a class has a text of its own, which would be found first


class Stranger:
    """Stands for an object that the program has never seen."""


def _data(stand_in: StandIn) -> Any:
    """The contents of an object as a built-in container."""
    return stand_in._standin_ask(stand_in._standin_base.__name__, stand_in)


def _unary(operation: str) -> Callable[[StandIn], Any]:
    return lambda self: self._standin_ask(operation, self)


def _binary(
    operation: str, apply: Callable[[Any, Any], Any], *, swapped: bool = False
) -> Callable[[StandIn, Any], Any]:
    def method(self: StandIn, other: Any) -> Any:
        one, two = (other, self) if swapped else (self, other)
        if not isinstance_of(other, StandIn) and not self._standin_asked:
            if self._standin_base is None:
                return NotImplemented
            return apply(_data(one) if one is self else one, _data(two) if two is self else two)
        made = self._standin_ask(operation, one, two)
        if isinstance_of(made, StandIn) and made._standin_number not in (self._standin_number, number_of(other)):
            _set(made, "_standin_asked", self._standin_asked or getattr(other, "_standin_asked", False))
        return made

    return method


def _add_operations() -> None:
    methods: dict[str, Any] = {
        "__copy__": _unary("copy"),
        "__round__": lambda self, digits=None: self._standin_ask("round", self, digits),
        "__getitem__": lambda self, key: self._standin_ask("getitem", self, key),
        "__setitem__": lambda self, key, value: self._standin_ask("setitem", self, key, value),
        "__delitem__": lambda self, key: self._standin_ask("delitem", self, key),
    }
    for name in _UNARY.split():
        methods[f"__{name}__"] = _unary(name)
    for name in (*_ORDERED.split(), *_ARITHMETIC.split(), *_IN_PLACE.split()):
        methods[f"__{name.rstrip('_')}__"] = _binary(name, getattr(operator, name))
    for name in _ARITHMETIC.split():
        methods[f"__r{name.rstrip('_')}__"] = _binary(name, getattr(operator, name), swapped=True)
    for name, method in methods.items():
        setattr(StandIn, name, method)


_UNARY = "len int float complex index neg pos invert abs str repr reversed"
_ORDERED = "lt le gt ge"
_ARITHMETIC = "add sub mul matmul truediv floordiv mod pow and_ or_ xor lshift rshift"
_IN_PLACE = "iadd isub imul itruediv ior iand ixor"
_add_operations()
