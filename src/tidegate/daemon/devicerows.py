"""The journal's rows of devices and of the networks that they are on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from tidegate.contract.codec import decode, encode
from tidegate.policy.device import IpAddress, Label, MacAddress
from tidegate.policy.known import AddressHolder, KnownDevice
from tidegate.policy.lan import InterfaceAddress, Lan

TABLES = (
    """
    CREATE TABLE lans (
      router TEXT PRIMARY KEY REFERENCES routers (id) ON DELETE CASCADE, mac TEXT, addresses TEXT NOT NULL
    ) STRICT;
    CREATE TABLE devices (
      router TEXT NOT NULL REFERENCES routers (id) ON DELETE CASCADE, mac TEXT NOT NULL, ip TEXT NOT NULL, hostname TEXT,
      name TEXT, first_seen TEXT, last_seen TEXT, PRIMARY KEY (router, mac)
    ) STRICT;
    """,
    """
    CREATE TABLE held_addresses (
      router TEXT NOT NULL REFERENCES routers (id) ON DELETE CASCADE, address TEXT NOT NULL, mac TEXT NOT NULL, before TEXT,
      moved_at TEXT, PRIMARY KEY (router, address)
    ) STRICT;
    """,
)


def lan(db: sqlite3.Connection, router_id: str) -> Lan | None:
    """The router's network as it was last seen; None for a router that was enrolled before this was asked and not since."""
    row = db.execute("SELECT mac, addresses FROM lans WHERE router = ?", (str(router_id),)).fetchone()
    return Lan(MacAddress(row[0]) if row[0] else None, decode(row[1], tuple[InterfaceAddress, ...])) if row else None


def save_lan(db: sqlite3.Connection, router_id: str, found: Lan) -> None:
    row = (str(router_id), found.mac and str(found.mac), encode(found.addresses).decode())
    db.execute(
        "INSERT INTO lans VALUES (?, ?, ?) "
        "ON CONFLICT (router) DO UPDATE SET mac = excluded.mac, addresses = excluded.addresses",
        row,
    )


Row = tuple[str, str, str | None, str | None, str | None, str | None]
"""MAC, addresses, what it calls itself, what people call it, first and last seen; as they stand in the journal."""


def read(db: sqlite3.Connection, router_id: str) -> list[Row]:
    columns = "mac, ip, hostname, name, first_seen, last_seen"
    return db.execute(f"SELECT {columns} FROM devices WHERE router = ?", (str(router_id),)).fetchall()  # noqa: S608


def devices(rows: Iterable[Row]) -> dict[MacAddress, KnownDevice]:
    """10,000 of them take a tenth of a second the first time: not for the event loop."""
    return {device.mac: device for device in map(_device, rows)}


@lru_cache(1 << 15)
def _device(row: Row) -> KnownDevice:
    mac, ip, hostname, name, first_seen, last_seen = row
    return KnownDevice(
        mac=MacAddress(mac),
        ip=decode(ip, tuple[IpAddress, ...]),
        hostname=hostname,
        name=Label(name) if name else None,
        first_seen=datetime.fromisoformat(first_seen) if first_seen else None,
        last_seen=datetime.fromisoformat(last_seen) if last_seen else None,
    )


def rows(router_id: str, devices: Iterable[KnownDevice]) -> list[tuple[str | None, ...]]:
    """What `save` writes. Made before: the journal has one writer, and others' changes wait while it works."""
    return [
        (
            str(router_id),
            str(device.mac),
            encode(device.ip).decode(),
            device.hostname,
            device.first_seen.isoformat() if device.first_seen else None,
            device.last_seen.isoformat() if device.last_seen else None,
        )
        for device in devices
    ]


def save(db: sqlite3.Connection, rows: Sequence[tuple[str | None, ...]]) -> None:
    """Write down what was heard of them; the names that people gave them stay as they are."""
    db.executemany(
        "INSERT INTO devices VALUES (?, ?, ?, ?, NULL, ?, ?) ON CONFLICT (router, mac) DO UPDATE SET "
        "ip = excluded.ip, hostname = excluded.hostname, last_seen = excluded.last_seen, "
        "first_seen = coalesce(first_seen, excluded.first_seen)",
        rows,
    )


def forget(db: sqlite3.Connection, router_id: str, macs: Iterable[MacAddress]) -> None:
    db.executemany("DELETE FROM devices WHERE router = ? AND mac = ?", ((str(router_id), str(mac)) for mac in macs))


def rename(db: sqlite3.Connection, router_id: str, mac: MacAddress, name: Label | None) -> None:
    """Also a device that only a group knows of has a row from then on."""
    db.execute(
        "INSERT INTO devices VALUES (?, ?, '[]', NULL, ?, NULL, NULL) "
        "ON CONFLICT (router, mac) DO UPDATE SET name = excluded.name",
        (str(router_id), str(mac), name and str(name)),
    )


def load_held(db: sqlite3.Connection, router_id: str) -> dict[IpAddress, AddressHolder]:
    """Who has the addresses that groups name without a MAC, and who had them before."""
    rows = db.execute("SELECT address, mac, before, moved_at FROM held_addresses WHERE router = ?", (str(router_id),))
    return {
        IpAddress(address): AddressHolder(
            MacAddress(mac), MacAddress(before) if before else None, datetime.fromisoformat(moved_at) if moved_at else None
        )
        for address, mac, before, moved_at in rows
    }


def save_held(db: sqlite3.Connection, router_id: str, held: Mapping[IpAddress, AddressHolder]) -> None:
    """These, and no others."""
    db.execute("DELETE FROM held_addresses WHERE router = ?", (str(router_id),))
    db.executemany(
        "INSERT INTO held_addresses VALUES (?, ?, ?, ?, ?)",
        (
            (
                str(router_id),
                str(address),
                str(each.mac),
                each.before and str(each.before),
                each.moved_at and each.moved_at.isoformat(),
            )
            for address, each in held.items()
        ),
    )
