"""A plain libtorrent session: what a download costs where nobody keeps a journal, answers requests or tells events.

A program of the bench's: `python -m bench.plain FOLDER` prints "ready"; each line that it then reads is a magnet link, which it
downloads, says "done", and forgets with its file. It ends when its input does.

Done means the same as with Tidegate: the file is whole. libtorrent tells it a moment before, its cache being still full.
"""

from __future__ import annotations

import sys
from typing import Any, cast

import libtorrent as lt


def _download(session: Any, link: str, folder: str) -> Any:
    parameters = lt.parse_magnet_uri(link)
    parameters.save_path = folder
    # As ours: at once, instead of when libtorrent's queue comes to it.
    parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    handle = session.add_torrent(parameters)
    _wait_for(session, lt.torrent_finished_alert)
    handle.flush_cache()
    _wait_for(session, lt.cache_flushed_alert)
    return handle


def _wait_for(session: Any, kind: type) -> None:
    while True:
        session.wait_for_alert(1000)
        if any(isinstance(alert, kind) for alert in session.pop_alerts()):
            return


def main() -> None:
    folder = sys.argv[1]
    settings = {
        "listen_interfaces": "127.0.0.1:0",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.storage_notification,
    }
    session: Any = lt.session(cast(Any, settings))
    print("ready", flush=True)
    for line in sys.stdin:
        handle = _download(session, line.strip(), folder)
        print("done", flush=True)
        session.remove_torrent(handle, lt.session.delete_files)
        _wait_for(session, lt.torrent_deleted_alert)
        print("forgotten", flush=True)


if __name__ == "__main__":
    main()
