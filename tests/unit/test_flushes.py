"""Who waits for bytes to be in files waits for a flush that began after asking."""

from __future__ import annotations

from tidegate.torrent.flushes import Flushes


class Engine:
    """Stands for the engine: flushes that were asked for, and who was told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.served: list[str] = []
        self.flushes = Flushes(self.asked.append)

    def ask(self, key: str, name: str) -> None:
        self.flushes.ask(key, lambda: self.served.append(name))

    def alerts(self, key: str, count: int) -> None:
        for _ in range(count):
            self.flushes.flushed(key)


def test_one_alert_is_not_enough_because_it_may_be_the_engines_own() -> None:
    engine = Engine()
    engine.ask("a", "first")
    engine.alerts("a", 1)
    assert engine.served == []
    engine.alerts("a", 1)
    assert engine.served == ["first"]


def test_who_asks_during_a_flush_waits_for_the_next_one() -> None:
    engine = Engine()
    engine.ask("a", "first")
    engine.ask("a", "second")
    engine.ask("a", "third")
    assert engine.asked == ["a", "a"]
    engine.alerts("a", 2)
    assert (engine.served, engine.asked) == (["first"], ["a"] * 4)
    engine.alerts("a", 2)
    assert engine.served == ["first", "second", "third"]
    engine.alerts("a", 2)
    assert engine.asked == ["a"] * 4


def test_torrents_do_not_wait_for_each_other() -> None:
    engine = Engine()
    engine.ask("a", "a")
    engine.ask("b", "b")
    engine.alerts("b", 2)
    assert engine.served == ["b"]


def test_nobody_waits_for_a_torrent_that_has_left() -> None:
    engine = Engine()
    engine.ask("a", "first")
    engine.ask("a", "second")
    engine.flushes.forget("a")
    assert engine.served == ["first", "second"]
    engine.alerts("a", 2)
    assert (engine.served, engine.asked) == (["first", "second"], ["a", "a"])
