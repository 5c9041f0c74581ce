"""Read from the code of a class whether its instances call their ``.app``, as middleware does."""

from __future__ import annotations

import dis
import gc
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

_cache: WeakKeyDictionary[type[Any], bool] = WeakKeyDictionary()
_READS = ("LOAD_ATTR", "LOAD_METHOD")


def reads_app(kind: type[Any]) -> bool:
    """Return whether the ``__call__`` of a class, or a method that it uses, reads an attribute ``app``.

    If not, the instance can't call its ``app``. If so, it may still answer by itself, as middleware may.
    """
    answer = _cache.get(kind)
    if answer is None:
        answer = _cache[kind] = _reads_app(kind)
    return answer


def _reads_app(kind: type[Any]) -> bool:
    names = ["__call__"]
    for name in names:  # the loop extends it
        for code in _codes_of(kind, name):
            if any(step.argval == "app" and step.opname in _READS for step in dis.get_instructions(code)):
                return True
            names += [other for other in code.co_names if other not in names]
    return False


def _codes_of(kind: type[Any], name: str) -> Iterator[CodeType]:
    """Yield the code of a method and of the methods it overrides, with their nested and decorated functions."""
    waiting = [vars(owner)[name] for owner in kind.__mro__ if name in vars(owner)]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, property):
            waiting.append(found.fget)
        elif isinstance(found, FunctionType):
            waiting += [found.__code__, *gc.get_referents(*(found.__closure__ or ()))]
        elif isinstance(found, CodeType):
            yield found
            waiting += found.co_consts
