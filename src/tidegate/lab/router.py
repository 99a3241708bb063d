"""The lab's router: a machine of its own, shaped like an OpenWrt one.

What it offers to those who install something on it:

- `/` is an overlay of a read-only system and the *flash*; `flash` on the host shows only what was written since.
  What is on the flash survives power cuts; /tmp (with /var and /run) and /dev are fresh at every boot.
- init is busybox's. At boot it runs /etc/init.d/rcS: every executable /etc/rc.d/S??* in order with the argument `boot`,
  network and firewall between S18 and S19 (on OpenWrt they are S20 and S19), then /etc/rc.local. After that it starts,
  and starts again if they end: dropbear (SSH), crond on /etc/crontabs (root's: /etc/crontabs/root), dnsmasq on
  /etc/dnsmasq.conf with /etc/dnsmasq.d/*.conf, syslogd into /var/log/messages.
- root's home /root is on the flash: /root/.ssh/authorized_keys is what dropbear reads (Debian's, unlike OpenWrt's,
  reads no /etc/dropbear/authorized_keys).
- Debian's ip and tc are in /sbin and /usr/sbin; nft, conntrack, dnsmasq in /usr/sbin; flock in /usr/bin; everything
  else is busybox. See `rom.py` for /bin/sh.
- Interfaces: `br-lan` with a port `lanN` for each host, `wan`. The rules are in `table inet fw`; of
  a router without nft, in iptables and ip6tables.

`reboot` and `poweroff` run inside it switch it off; `boot()` switches it on.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import select
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

from tidegate.lab import cables, network, rom
from tidegate.lab.box import Box, Process, run
from tidegate.lab.network import Place
from tidegate.lab.support import ADMINISTRATORS_PATH, LabError, need

_ROM: Final = "/run/lab/rom"
_FLASH: Final = "/run/lab/flash"
_KEY: Final = "etc/dropbear/dropbear_ed25519_host_key"
_BOOT_TIME: Final = 20.0
"""Seconds that a boot may take before it counts as failed; it takes 0.1."""

# The first process of the router's own process namespace. /run/outside is the host's /proc, where it finds its number
# as the host sees it. /usr is bound with what is mounted below it, which a user namespace may not take apart.
_POWER_ON: Final = f"""
read -r pid rest </run/outside/self/stat
root=/run/lab/root
mount -t overlay router -o "lowerdir={_ROM},upperdir={_FLASH}/upper,workdir={_FLASH}/work$1" $root
cd $root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=1777,size=64m tmp tmp
mount -t tmpfs -o mode=0755,size=1m dev dev
for device in null zero full random urandom tty; do
  : >dev/$device
  mount --bind /dev/$device dev/$device
done
mount --rbind /usr rom/usr
mount -o remount,bind,ro rom/usr
echo "$pid"
pivot_root . mnt
exec chroot . bin/busybox sh -c 'umount -l /mnt; exec /bin/busybox init' >dev/null 2>&1 <dev/null
"""


class Router:
    """The router. `boot`, `power_cut` and `reboot` are for one thread at a time; `run` may be called from any."""

    def __init__(
        self, box: Box, places: list[Place], *, shell: rom.Shell, lacks: frozenset[rom.Lack], tables: rom.Tables
    ) -> None:
        self._box = box
        self._places = places
        self._shell: rom.Shell = shell
        self._lacks, self._tables = lacks, tables
        self._power = threading.RLock()
        self._machine: Process | None = None
        self._init = 0
        self._init_fd = -1
        self.address, self.address6 = network.ROUTER_LAN
        self.wan_address, self.wan_address6 = network.ROUTER_WAN
        self.lan: str = network.LAN
        self.wan: str = network.WAN
        self.mac = network.ROUTER_MAC
        self.password = secrets.token_urlsafe(12)
        self.host_key = ""
        self.host_public_key = ""

    @property
    def is_on(self) -> bool:
        """Whether its init runs."""
        return self._machine is not None and self._machine.poll() is None

    @property
    def files(self) -> Path:
        """Its root directory as it runs, seen from the host. Absolute links in it lead to the host's files."""
        self._must_be_on()
        return Path(f"/proc/{self._init}/root")

    @property
    def flash(self) -> Path:
        """Everything that was written since it left the factory, seen from the host, running or not."""
        return self._box.path(f"{_FLASH}/upper")

    def install(self) -> None:
        """Build its system and give it its host key."""
        system = self._box.path(_ROM)
        for directory in (system, self.flash, self._box.path(f"{_FLASH}/work"), self._box.path("/run/lab/root")):
            directory.mkdir(parents=True)
        rom.build(
            system,
            self._places,
            shell=self._shell,
            lacks=self._lacks,
            tables=self._tables,
            lan_mac=self.mac,
            password=self.password,
        )
        made = subprocess.run(
            [need("dropbearkey"), "-t", "ed25519", "-f", str(system / _KEY)],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        public = next(line for line in made.stdout.splitlines() if line.startswith("ssh-ed25519 "))
        self.host_public_key = " ".join(public.split()[:2])
        digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
        self.host_key = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def run(
        self,
        line: str,
        *,
        input: str | None = None,
        timeout: float = 30,
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell line on the router as root, with a login's environment. Raises `LabError` if it is off."""
        self._must_be_on()
        user = ["--user", "--preserve-credentials"] if self._box.rootless else []
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        tied = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--"]
        enter = [*self._box.as_root(), need("nsenter"), "--target", str(self._init), *user, *namespaces]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "USER": "root"}
        return run([*enter, *tied, "/bin/sh", "-c", line], input=input, timeout=timeout, env=environment)

    def boot(self) -> None:
        """Switch it on; returns when it answers SSH and DNS. Raises `LabError` if it does not, and leaves it on."""
        with self._power:
            if self.is_on:
                raise LabError("the router is on already")
            self.power_cut()  # it may have switched itself off
            cables.plug(self._box, self._places)
            options = ",userxattr" if self._box.rootless else ""
            namespaces = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private"]
            power_on = ["unshare", *namespaces, "sh", "-euc", _POWER_ON, "router", options]
            self._machine = Process(
                self._box.enter("router", power_on),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env={"PATH": ADMINISTRATORS_PATH},
            )
            assert self._machine.stdout is not None
            first = self._machine.stdout.readline()
            if not first:
                _, why = self._machine.communicate(timeout=10)
                raise LabError(f"the router did not start: {why.decode().strip()}")
            self._init = int(first)
            self._init_fd = os.pidfd_open(self._init)
            self._wait_for_services()

    def power_cut(self) -> None:
        """Cut its power: the cables go dead first, so that nothing it was connected to hears of it."""
        with self._power:
            if self._machine is None:
                return
            cables.unplug(self._box)
            self._switch_off()
            cables.discard(self._box)

    def reboot(self) -> None:
        """Power off, and on again with the same flash."""
        with self._power:
            self.power_cut()
            self.boot()

    def close(self) -> None:
        """Let go of the machine's process after the box has ended."""
        with self._power:
            machine, self._machine = self._machine, None
            if machine is not None:
                machine.communicate(timeout=_BOOT_TIME)
                os.close(self._init_fd)

    def _switch_off(self) -> None:
        """Kill init, and with it every process of the router; returns when the last is gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._init_fd, signal.SIGKILL)
        if not select.select([self._init_fd], [], [], _BOOT_TIME)[0]:
            raise LabError("the router's init did not end")
        self.close()

    def _wait_for_services(self) -> None:
        until = time.monotonic() + _BOOT_TIME
        while not (listens(self._init, "tcp", 22) and listens(self._init, "udp", 53)):
            if not self.is_on or time.monotonic() > until:
                log = Path(f"/proc/{self._init}/root/tmp/log/messages")
                said = log.read_text()[-2000:] if log.exists() else "nothing"
                raise LabError(f"the router's services did not start; its log says:\n{said}")
            time.sleep(0.003)

    def _must_be_on(self) -> None:
        if not self.is_on:
            raise LabError("the router is off")


def listens(pid: int, protocol: str, port: int) -> bool:
    """Whether anything in a process's network listens on a port, IPv4 or IPv6."""
    wanted = f":{port:04X} "
    state = " 0A " if protocol == "tcp" else " 07 "
    for family in ("", "6"):
        try:
            table = Path(f"/proc/{pid}/net/{protocol}{family}").read_text()
        except OSError:
            return False
        for line in table.splitlines()[1:]:
            local = line.split()[1]
            if f"{local} ".endswith(wanted) and state in line:
                return True
    return False
