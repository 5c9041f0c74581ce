"""Detects whether a few objects are reachable, without a full garbage collection.

An app is part of reference cycles, so an unused app stays alive until the garbage collector runs. A full collection
takes time in proportion to the process. This module examines only the objects that hold the app. As in a collection,
the references among these objects are subtracted from all references to them. A remaining reference comes from
another object, which is then looked up, or from a non-object such as a running function. If no reference remains,
only garbage holds the app.
"""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from itertools import chain

_MOST_AHEAD, _MOST_FURTHER_AHEAD = 1_000, 100_000
"""The maximum numbers of referents to examine, since they may hold the objects that refer to them.

A FastAPI app of any size refers back to itself within 40 objects, but each of its routes holds it as well. The lower
number suffices for reachable apps.
"""
_MOST_AT_ONCE = 10
"""The maximum number of objects for which ``gc.get_referrers`` is faster; its time grows with each object."""
_HOLDS_NO_APP = (type, types.ModuleType, types.CodeType)
"""Types of objects that refer to everything else, and that almost never hold an app."""


def find_reachable(references: Sequence[weakref.ref[object]]) -> list[bool]:
    """Return for each object whether it is reachable through anything but weak references.

    This takes milliseconds, plus one pass over all objects of the process for each step to an unknown holder; most
    often one or two.
    """
    if not references:
        return []
    search = _Search()
    asked = search.examine_first(references)
    results = dict.fromkeys(asked, False)
    looked_up: set[int] = set()
    undecided = results.keys() - {id(None)}
    while undecided:
        unexplained: set[int] = set()
        for one in tuple(undecided):
            holding = search.holders_of(one)
            left = search.find_held_elsewhere(holding)
            if left and looked_up.isdisjoint(left) and not search.is_rooted(holding):
                unexplained |= left
            else:
                results[one] = bool(left)
                undecided.discard(one)
        if unexplained:
            looked_up |= search.look_up(unexplained)
    return [results[one] for one in asked]


class _Search:
    """The examined objects, by ``id``. While references are counted, nothing else in this module holds them."""

    def __init__(self) -> None:
        self._objects: dict[int, object] = {}
        self._holders: defaultdict[int, list[int]] = defaultdict(list)
        """The examined holders of an object, once for each reference."""
        self._namespaces = {id(getattr(one, "__dict__", None)) for one in list(sys.modules.values())}
        """The global variables of modules, which are always reachable."""
        probe = {0: object()}
        self._own_references = sys.getrefcount(probe[0])

    def examine_first(self, references: Iterable[weakref.ref[object]]) -> list[int]:
        """Examine the given objects and return their ids; for a collected object, the id of ``None``."""
        objects = [reference() for reference in references]
        self.look_at(objects)
        return [id(one) for one in objects]

    def look_at(self, objects: Iterable[object]) -> None:
        """Examine objects and a limited number of their referents."""
        queue = deque(objects)
        self._look_at(queue, len(queue) + _MOST_AHEAD)

    def look_further(self) -> bool:
        """Examine more referents; return whether there were any."""
        before = len(self._objects)
        found = chain.from_iterable(map(self._referents_of, list(self._objects.values())))
        self._look_at(deque(found), _MOST_FURTHER_AHEAD)
        return len(self._objects) > before

    def _look_at(self, queue: deque[object], room: int) -> None:
        while queue and room:
            one = queue.popleft()
            if id(one) in self._objects or one is None:
                continue
            room -= 1
            self._objects[id(one)] = one
            for held in gc.get_referents(one):
                self._holders[id(held)].append(id(one))
            queue.extend(self._referents_of(one))

    def _referents_of(self, one: object) -> list[object]:
        """Return the referents of an object that may hold an app."""
        if id(one) in self._namespaces:
            return []
        return [held for held in gc.get_referents(one) if gc.is_tracked(held) and not isinstance(held, _HOLDS_NO_APP)]

    def look_up(self, ids: set[int]) -> set[int]:
        """Look up other holders of objects; return the ids whose holders are now all known."""
        if len(ids) > _MOST_AT_ONCE and self.look_further():
            return set()
        if len(ids) <= _MOST_AT_ONCE:
            found = gc.get_referrers(*[self._objects[one] for one in ids])
        else:
            found = [one for one in gc.get_objects() if not ids.isdisjoint(map(id, gc.get_referents(one)))]
        self.look_at(one for one in found if one is not self._objects)
        return ids

    def holders_of(self, asked: int) -> set[int]:
        """Return the ids of all direct and indirect holders of an object, and its own."""
        found, new = {asked}, [asked]
        while new:
            more = set(self._holders.get(new.pop(), ())) - found
            found |= more
            new.extend(more)
        return found

    def find_held_elsewhere(self, holding: set[int]) -> set[int]:
        """Return the ids of the objects with more references than these objects hold to them."""
        within = self._count_internal_references(holding)
        left = {one for one in holding if sys.getrefcount(self._objects[one]) - self._own_references > within[one]}
        if not left and self._count_internal_references(holding) != within:
            return holding  # other code has changed them meanwhile, so they are reachable
        return left

    def is_rooted(self, holding: set[int]) -> bool:
        """Return whether the global variables of a module are among the holders."""
        return not self._namespaces.isdisjoint(holding)

    def _count_internal_references(self, holding: set[int]) -> dict[int, int]:
        """Return the number of references from these objects to each of them."""
        held = Counter(map(id, gc.get_referents(*[self._objects[one] for one in holding])))
        return {one: held[one] for one in holding}
