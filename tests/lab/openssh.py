"""OpenSSH's server on the lab's router, beside its dropbear: a real sshd with a host key and options of its own."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from tests.lab.probes import connects, eventually
from tidegate.lab import Lab

PORT = 2222


@dataclass(frozen=True)
class Sshd:
    """`port` is where this machine reaches it; `host_key` the fingerprint of the key that it shows."""

    port: int
    host_key: str


def start_sshd(lab: Lab, port: int = PORT, *options: str, key_type: str = "ed25519") -> Sshd:
    """Start one on a router that is on; it ends with the router."""
    folder = f"/tmp/sshd-{port}"
    common = ("UsePAM no", "PermitRootLogin yes", "Subsystem sftp /rom/usr/lib/openssh/sftp-server", "MaxStartups 100")
    conf = "\n".join((f"Port {port}", f"HostKey {folder}/key", f"PidFile {folder}/pid", *common, *options, ""))
    done = lab.router.run(
        f"""set -e
        grep -q ^sshd: /etc/passwd || echo sshd:x:100:65534::/run/sshd:/bin/false >>/etc/passwd
        mkdir -p {folder} /run/sshd; chmod 755 /run/sshd
        /rom/usr/bin/ssh-keygen -q -t {key_type} -N '' -f {folder}/key
        cat >{folder}/conf
        /rom/usr/sbin/sshd -f {folder}/conf -E {folder}/log
        cat {folder}/key.pub""",
        input=conf,
    )
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256(base64.b64decode(done.stdout.split()[1])).digest()
    client = next(iter(lab.clients.values()))
    eventually(lambda: connects(client, lab.router.address, port))
    return Sshd(lab.forward(lab.router.address, port), "SHA256:" + base64.b64encode(digest).decode().rstrip("="))


def stop_sshd(lab: Lab) -> None:
    """End every sshd of the router's own, with its sessions, and forget what it logged."""
    assert lab.router.run("kill $(pidof sshd); rm -r /tmp/sshd-*").returncode == 0


def log_ins(lab: Lab) -> int:
    """How often somebody was let in by the sshd that runs."""
    return int(lab.router.run("cat /tmp/sshd-*/log | grep -c ^Accepted").stdout)
