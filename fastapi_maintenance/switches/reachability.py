"""Which objects can still be reached: what the garbage collector finds out about all objects, asked about a few.

An app holds itself alive in reference cycles, so one that nobody has any more waits for the garbage collector. A
collection takes as long as the process is large. Here only those objects are looked at that hold the app. As in a
collection, the references that they hold to each other are subtracted from their reference counts. One that has
references left is held by something else: by an object, which is then looked up, or by what is no object, such as a
running function. If none has any left, only garbage holds the app.
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
"""How many objects are looked at, at most, because others lead to them: one may be what holds those.

A FastAPI app comes back to itself within 40 objects, whatever its size; but each of its routes holds it as well. One
that can be reached is found out by the lower number.
"""
_MOST_AT_ONCE = 10
"""For so many objects, ``gc.get_referrers`` is the faster way; it takes longer with each."""
_HOLDS_NO_APP = (type, types.ModuleType, types.CodeType)
"""Types of objects that lead to everything else, and that hold an app almost never."""


def reachable(references: Sequence[weakref.ref[object]]) -> list[bool]:
    """Return for each object whether anything but weak references can still reach it.

    That takes milliseconds, and one pass over all objects of the process for each step away from the object, most
    often one or two, where what holds it does not become known otherwise.
    """
    if not references:
        return []
    search = _Search()
    asked = search.look_at_first(references)
    verdicts = dict.fromkeys(asked, False)
    looked_up: set[int] = set()
    undecided = verdicts.keys() - {id(None)}
    while undecided:
        unexplained: set[int] = set()
        for one in tuple(undecided):
            holding = search.holding(one)
            left = search.held_otherwise(holding)
            if left and looked_up.isdisjoint(left) and not search.is_rooted(holding):
                unexplained |= left
            else:
                verdicts[one] = bool(left)
                undecided.discard(one)
        if unexplained:
            looked_up |= search.look_up(unexplained)
    return [verdicts[one] for one in asked]


class _Search:
    """What was looked at, by the ``id``. While references are counted, nothing else here holds these objects."""

    def __init__(self) -> None:
        self._objects: dict[int, object] = {}
        self._holders: defaultdict[int, list[int]] = defaultdict(list)
        """What holds an object, as far as it was looked at; once for each reference."""
        self._namespaces = {id(getattr(one, "__dict__", None)) for one in list(sys.modules.values())}
        """The global variables of modules, which can always be reached."""
        probe = {0: object()}
        self._own_references = sys.getrefcount(probe[0])

    def look_at_first(self, references: Iterable[weakref.ref[object]]) -> list[int]:
        """Look at what is asked about, and return the ids; of what is gone, that of ``None``."""
        objects = [reference() for reference in references]
        self.look_at(objects)
        return [id(one) for one in objects]

    def look_at(self, objects: Iterable[object]) -> None:
        """Look at objects, and at a number of those that they lead to."""
        queue = deque(objects)
        self._look_at(queue, len(queue) + _MOST_AHEAD)

    def look_further(self) -> bool:
        """Look at more of what all these objects lead to; return whether there was any."""
        before = len(self._objects)
        found = chain.from_iterable(map(self._led_to, list(self._objects.values())))
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
            queue.extend(self._led_to(one))

    def _led_to(self, one: object) -> list[object]:
        """Return what an object leads to, as far as it may hold an app."""
        if id(one) in self._namespaces:
            return []
        return [held for held in gc.get_referents(one) if gc.is_tracked(held) and not isinstance(held, _HOLDS_NO_APP)]

    def look_up(self, ids: set[int]) -> set[int]:
        """Look up what else holds objects; return those for which everything is known then."""
        if len(ids) > _MOST_AT_ONCE and self.look_further():
            return set()
        if len(ids) <= _MOST_AT_ONCE:
            found = gc.get_referrers(*[self._objects[one] for one in ids])
        else:
            found = [one for one in gc.get_objects() if not ids.isdisjoint(map(id, gc.get_referents(one)))]
        self.look_at(one for one in found if one is not self._objects)
        return ids

    def holding(self, asked: int) -> set[int]:
        """Return all that holds an object, itself included."""
        found, new = {asked}, [asked]
        while new:
            more = set(self._holders.get(new.pop(), ())) - found
            found |= more
            new.extend(more)
        return found

    def held_otherwise(self, holding: set[int]) -> set[int]:
        """Return those objects to which there are more references than these objects hold."""
        within = self._held_within(holding)
        left = {one for one in holding if sys.getrefcount(self._objects[one]) - self._own_references > within[one]}
        if not left and self._held_within(holding) != within:
            return holding  # something has changed them meanwhile, so it can reach them
        return left

    def is_rooted(self, holding: set[int]) -> bool:
        """Return whether the global variables of a module are among what holds an object."""
        return not self._namespaces.isdisjoint(holding)

    def _held_within(self, holding: set[int]) -> dict[int, int]:
        """Return how many references these objects hold to each of them."""
        held = Counter(map(id, gc.get_referents(*[self._objects[one] for one in holding])))
        return {one: held[one] for one in holding}
