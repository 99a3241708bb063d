"""`tidegate up` as its user starts, asks, stops and loses it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import httpx2

from tests.e2e.processes import TIDEGATE, answer, environment, tidegate, up


def test_a_first_start_shows_a_key_once_that_works_over_http(tmp_path: Path) -> None:
    with up(tmp_path) as daemon:
        url = daemon.ready()
        key = daemon.until(r"shown this once: (tg_\S+)")[1]
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as http:
            assert http.get("/api/v1/system/status").json()["routers"] == 0
            assert http.get("/readyz").status_code == 200
        assert httpx2.get(f"{url}/healthz", trust_env=False).json() == {"alive": True}
        assert httpx2.get(f"{url}/api/v1/system/status", trust_env=False).status_code == 401
        shown = tidegate("system", "status", "--url", url, "--key", key)
        assert shown.returncode == 0
        assert daemon.end() == 0
    with up(tmp_path) as daemon:
        assert daemon.end() == 0
        assert "shown this once" not in daemon.said
        assert key not in daemon.said


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    with up(tmp_path) as daemon:
        made = answer("keys", "create", "Ada", "--scope", "operate", socket=daemon.socket)
        daemon.end(signal.SIGKILL)
    with up(tmp_path) as daemon:
        names = [key["name"] for key in answer("keys", "list", socket=daemon.socket)["keys"]]
        assert names == ["first key", "Ada"]
        status = tidegate("keys", "list", "--url", daemon.ready(), "--key", made["key"])
        assert status.returncode == 1  # known, but its scope is too small
        assert "needs a key with scope admin" in status.stderr
        entries = answer("audit", "list", socket=daemon.socket)["entries"]
        assert [entry["number"] for entry in entries] == list(range(1, len(entries) + 1))
        assert answer("audit", "verify", socket=daemon.socket)["intact"]
        daemon.end()
    with up(tmp_path) as daemon:
        kinds = [entry["type"] for entry in answer("audit", "list", socket=daemon.socket)["entries"]]
        assert kinds.count("daemon_started") == 3
        assert kinds.count("daemon_stopped") == 1


def test_a_state_directory_has_one_daemon(tmp_path: Path) -> None:
    with up(tmp_path) as daemon:
        second = tidegate("up", "--state-dir", str(tmp_path), "--listen", "127.0.0.1:0")
        assert second.returncode == 1
        assert "another daemon" in second.stderr
        assert answer("system", "status", socket=daemon.socket)["state_dir"] == str(tmp_path)


def test_settings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text('lisen = "127.0.0.1:0"\n')
    wrong = tidegate("up", "--config", str(file), "--state-dir", str(tmp_path))
    assert (wrong.returncode, "did you mean listen?" in wrong.stderr) == (1, True)
    beyond = tidegate("up", "--state-dir", str(tmp_path), "--listen", "0.0.0.0:0")
    assert (beyond.returncode, "TLS" in beyond.stderr) == (1, True)


def test_the_exit_status_tells_refusal_usage_and_absence_apart(tmp_path: Path) -> None:
    with up(tmp_path) as daemon:
        refused = tidegate("groups", "list-groups", "nowhere", socket=daemon.socket)
        assert (refused.returncode, refused.stderr) == (1, "there is no router nowhere\n")
        as_json = tidegate("groups", "list-groups", "nowhere", "--json", socket=daemon.socket)
        assert json.loads(as_json.stderr)["status"] == 404
        assert tidegate("groups", "list-groups", "No Where", socket=daemon.socket).returncode == 2
        assert tidegate("groups", "lst-groups", socket=daemon.socket).returncode == 2
    absent = tidegate("groups", "list-groups", "nowhere", socket=tmp_path / "none.sock")
    assert (absent.returncode, "tidegate up" in absent.stderr) == (3, True)


def test_watch_goes_on_across_a_restart_and_misses_nothing(tmp_path: Path) -> None:
    with up(tmp_path) as daemon:
        command = [*TIDEGATE, "watch", "--since", "0", "--json", "--socket", str(daemon.socket)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
        ) as watch:
            assert watch.stdout is not None
            seen = [json.loads(watch.stdout.readline()) for _ in range(2)]
            daemon.end(signal.SIGKILL)
            with up(tmp_path) as again:
                answer("keys", "create", "Ada", socket=again.socket)
                seen += [json.loads(watch.stdout.readline()) for _ in range(2)]
            watch.terminate()
    assert [entry["number"] for entry in seen] == [1, 2, 3, 4]
    assert [entry["type"] for entry in seen] == ["daemon_started", "key_created", "daemon_started", "key_created"]


def test_it_stops_in_order_while_a_stream_is_open(tmp_path: Path) -> None:
    with up(tmp_path) as daemon:
        command = [*TIDEGATE, "events", "follow", "--since", "0", "--json", "--socket", str(daemon.socket)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as follow:
            assert follow.stdout is not None
            follow.stdout.readline()
            assert daemon.end(seconds=12) == 0
            follow.communicate(timeout=10)
