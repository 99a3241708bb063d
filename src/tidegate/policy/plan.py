"""Comparing what is with what should be.

`plan(seen, desired)` is what to do; empty means that the router is as it should be; `plan(desired, seen)` undoes it. Order is
part of the plan: classes stand before a map names them (a class that does not exist is no limit, silently) and go after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from tidegate.policy import tc
from tidegate.policy.desired import Place, Resources
from tidegate.policy.dialect import Dialect, Parts
from tidegate.policy.element import POLICERS, Element
from tidegate.policy.group import GUESTS


@dataclass(frozen=True)
class Change:
    """From one state of a router's resources to another. Falsy where they are the same.

    What differs is worked out once: words, text and undoing all ask for it, and of 1,000 groups it is 31,000 elements.
    """

    seen: Resources
    desired: Resources

    @property
    def new_table(self) -> bool:
        """The constant rules differ, so the whole table is made anew, with all its elements."""
        return self.seen.rules != self.desired.rules

    @property
    def wide(self) -> bool:
        """It touches what all packets pass, so it could cut the LAN off: constant rules, root queues."""
        return self.new_table or self.seen.roots != self.desired.roots

    @cached_property
    def elements_gone(self) -> list[Element]:
        return sorted(self.seen.elements - self.desired.elements)

    @cached_property
    def elements_new(self) -> list[Element]:
        return sorted(self.desired.elements - self.seen.elements)

    @cached_property
    def roots_gone(self) -> list[str]:
        return sorted(self.seen.roots - self.desired.roots)

    @cached_property
    def roots_new(self) -> list[str]:
        return sorted(self.desired.roots - self.seen.roots)

    @cached_property
    def classes_gone(self) -> list[Place]:
        return sorted(place for place in self.seen.classes if place not in self.desired.classes)

    @cached_property
    def classes_put(self) -> list[Place]:
        """Places whose class is not there yet, or is another."""
        return sorted(place for place, wanted in self.desired.classes.items() if self.seen.classes.get(place) != wanted)

    def __bool__(self) -> bool:
        return (self.seen.rules, self.seen.elements, self.seen.roots, self.seen.classes) != (
            self.desired.rules,
            self.desired.elements,
            self.desired.roots,
            self.desired.classes,
        )

    def tc_put(self) -> list[str]:
        """What tc does before the rules change."""
        lines = [line for device in self.roots_new for line in tc.add_root(device)]
        for place in self.classes_put:
            seen = self.seen.classes.get(place) if place.device in self.seen.roots else None
            lines += tc.put_class(*place, self.desired.classes[place], seen)
        return lines

    @property
    def dialect(self) -> Dialect:
        """The router's: where nothing of ours is left or was there, the other side knows it."""
        return (self.desired if self.desired.rules else self.seen).dialect

    def rules(self, lan: str) -> Parts:
        """What the dialect's tools do between `tc_put` and `tc_remove`."""
        if not self.new_table:
            return self.dialect.change(lan, self.elements_gone, self.elements_new, self.desired.elements)
        if not self.desired.rules:
            return self.dialect.nothing()
        return self.dialect.whole(lan, self.desired.elements)

    def tc_remove(self) -> list[str]:
        """What tc does after the rules have changed. The classes of a root that goes, go with it."""
        kept = [place for place in self.classes_gone if place.device not in self.roots_gone]
        return [tc.remove_class(*place) for place in kept] + [tc.remove_root(device) for device in self.roots_gone]


def plan(seen: Resources, desired: Resources) -> Change:
    return Change(seen, desired)


# ── in words


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that a change does, or one place where a router drifted, and whose it is (None: the base set-up's)."""

    group: int | None
    text: str


def in_words(change: Change, lan: str) -> tuple[str, ...]:
    """What the change does, for people: devices, limits, the base set-up."""
    return texts(remarks(change, lan))


def remarks(change: Change, lan: str) -> tuple[Remark, ...]:
    """The same with whose it is; what concerns two groups is there once for each."""
    return tuple(_words(change, lan))


def texts(of: Iterable[Remark]) -> tuple[str, ...]:
    """Each text once, in order."""
    return tuple(dict.fromkeys(remark.text for remark in of))


def drift(change: Change) -> tuple[Remark, ...]:
    """Every place where the router is not as it should be; `change` is what would mend it."""
    return tuple(_places(change))


def _words(change: Change, lan: str) -> Iterator[Remark]:
    if change.new_table and change.desired.rules:
        yield Remark(None, "the base rules are put in place")
    if change.new_table and not change.desired.rules:
        yield Remark(None, "the base rules are taken away")
    for device in change.roots_new:
        yield Remark(None, f"{device}: the root queue is put in place")
    for place in change.classes_put:
        before, after = change.seen.classes.get(place), change.desired.classes[place]
        group = _group_of(place.minor)
        what = f"group {group}: {'download' if place.device == lan else 'upload'} limit"
        if before is None:
            yield Remark(group, f"{what} {_rate(after.kbit)}")
        elif before.kbit != after.kbit:
            yield Remark(group, f"{what} {_rate(after.kbit)}, was {_rate(before.kbit)}")
        else:
            yield Remark(group, f"{what} {_rate(after.kbit)}: queue and burst put right")
    gone, new = change.elements_gone, change.elements_new
    yield from _policed(gone, new)
    left, joined = _devices(gone), _devices(new)
    for key in sorted(left.keys() | joined.keys(), key=itemgetter(1)):
        was, now = left.get(key), joined.get(key)
        if now is None:
            yield Remark(was, f"{key[1]} leaves group {was} and is a guest")
        elif was is None:
            yield Remark(now, f"{key[1]} joins group {now}")
        else:
            yield Remark(was, f"{key[1]} moves from group {was} to group {now}")
            yield Remark(now, f"{key[1]} moves from group {was} to group {now}")
    for element in gone:
        if element.map == "blocked":
            yield Remark(group := element.mark - GUESTS.mark, f"group {group}: the internet is open to it again")
    for element in new:
        if element.map == "blocked":
            yield Remark(group := element.mark - GUESTS.mark, f"group {group}: the internet is closed to it")
    told = {_group_of(place.minor) for place in (*change.classes_put, *change.classes_gone)}
    for element in (*new, *gone):
        if element.map == "cls" and (group := element.mark - GUESTS.mark) not in told:
            yield Remark(group, f"group {group}: the way to its class is put right")
    for place in change.classes_gone:
        group = _group_of(place.minor)
        direction = "download" if place.device == lan else "upload"
        yield Remark(group, f"group {group}: {direction} limit {_rate(change.seen.classes[place].kbit)} is lifted")
    for device in change.roots_gone:
        yield Remark(None, f"{device}: the root queue is taken away")


def _policed(gone: Iterable[Element], new: Iterable[Element]) -> Iterator[Remark]:
    """Limits of a router that has no classes."""
    was, now = ({(e.map, e.mark): int(e.value) for e in some if e.map in POLICERS} for some in (gone, new))
    for name, mark in sorted(was.keys() | now.keys(), key=itemgetter(1, 0)):
        group = mark - GUESTS.mark
        what = f"group {group}: {'download' if name == 'police_down' else 'upload'} limit"
        before, after = was.get((name, mark)), now.get((name, mark))
        if after is None:
            yield Remark(group, f"{what} {_rate(before or 0)} is lifted")
        else:
            yield Remark(group, f"{what} {_rate(after)}" + (f", was {_rate(before)}" if before else ""))


def _places(change: Change) -> Iterator[Remark]:
    if change.new_table:
        where = change.dialect.place
        yield Remark(None, f"{where}: its rules were changed" if change.seen.rules else f"{where}: is missing")
    for device in change.roots_new:
        yield Remark(None, f"tc {device}: our root queue is missing")
    for device in change.roots_gone:
        yield Remark(None, f"tc {device}: carries a root queue of ours that it should not")
    wrong = {(e.map, e.key) for e in change.elements_new} & {(e.map, e.key) for e in change.elements_gone}
    for element in change.elements_new:
        state = "has another value" if (element.map, element.key) in wrong else "is missing"
        yield Remark(element.mark - GUESTS.mark, f"{change.dialect.place_of(element)} {state}")
    for element in change.elements_gone:
        if (element.map, element.key) not in wrong:
            yield Remark(element.mark - GUESTS.mark, f"{change.dialect.place_of(element)} should not be there")
    for place in change.classes_put:
        where = f"tc {place.device} class 1:{place.minor}"
        seen, wanted = change.seen.classes.get(place), change.desired.classes[place]
        if seen is None:
            why = "is missing"
        elif seen.kbit != wanted.kbit:
            why = f"lets {_rate(seen.kbit)} through instead of {_rate(wanted.kbit)}"
        else:
            why = "has another queue or burst"
        yield Remark(_group_of(place.minor), f"{where}: {why}")
    for place in change.classes_gone:
        yield Remark(_group_of(place.minor), f"tc {place.device} class 1:{place.minor}: should not be there")


def _devices(elements: Iterable[Element]) -> dict[tuple[str, str], int]:
    return {(e.map, e.key): e.mark - GUESTS.mark for e in elements if e.names_a_device}


def _group_of(minor: str) -> int | None:
    return int(minor) - GUESTS.mark if minor.isdecimal() and int(minor) >= GUESTS.mark else None


def _rate(kbit: int) -> str:
    return f"{kbit / 1000:g} Mbit/s"
