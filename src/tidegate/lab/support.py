"""What this machine must have for a lab, and what to do where it does not have it."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

ADMINISTRATORS_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

# program -> Debian's package. Those of the second line also become the router's.
_ON_THE_HOST = {"unshare": "util-linux", "nsenter": "util-linux", "iperf3": "iperf3", "dropbearkey": "dropbear-bin"}
ON_THE_ROUTER = {
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
    "conntrack": "conntrack",
    "dnsmasq": "dnsmasq-base",
    "dropbear": "dropbear-bin",
    "dash": "dash",
    "flock": "util-linux",
    "setpriv": "util-linux",
}

_PROBE = """
set -e
step() { echo "$1" >&3; }
step "mounting a tmpfs and an overlay (CONFIG_TMPFS, CONFIG_OVERLAY_FS)"
mount -t tmpfs lab /run && mkdir /run/low /run/up /run/work /run/root /run/netns
mount -t overlay lab -o lowerdir=/run/low,upperdir=/run/up,workdir=/run/work /run/root
step "mounting /proc (a container hides parts of it: run it with an unmasked /proc, or as root with CAP_SYS_ADMIN)"
mount -t proc proc /proc
step "making a network namespace (CONFIG_NET_NS)"
ip netns add a
step "making a veth pair and a bridge (CONFIG_VETH, CONFIG_BRIDGE)"
ip link add v0 type veth peer name v1 netns a && ip link add br0 type bridge && ip link set v0 master br0
step "loading nftables rules with NAT and connection marks (CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_CT)"
nft -f - <<'END'
table inet t {
  chain c { type nat hook postrouting priority srcnat
    meta nfproto ipv4 masquerade
  }
  chain f { type filter hook forward priority 0
    ct mark set 1
  }
}
END
step "shaping with HTB (CONFIG_NET_SCH_HTB)"
tc qdisc add dev v0 root handle 1: htb
step ""
"""


class LabError(Exception):
    """The lab could not do what was asked of it."""


class LabUnavailable(LabError):
    """This machine cannot run a lab; the message says what is missing and what to do."""


def find(program: str) -> str | None:
    """The path of a program, looked for where administrators' programs are too, which a plain user's PATH leaves out."""
    return shutil.which(program, path=environment()["PATH"])


def environment() -> dict[str, str]:
    """This process's environment, with administrators' programs on the PATH."""
    return os.environ | {"PATH": f"{os.environ.get('PATH', '')}:{ADMINISTRATORS_PATH}"}


def need(program: str) -> str:
    """The path of a program, or `LabUnavailable` with the name of its package."""
    found = find(program)
    if found is None:
        package = (_ON_THE_HOST | ON_THE_ROUTER).get(program, "iptables" if "tables" in program else program)
        raise LabUnavailable(f"{program} is not installed: apt-get install {package}")
    return found


@functools.cache
def busybox() -> str:
    """A static busybox that has crond: TIDEGATE_BUSYBOX, else the PATH's, else the one in the project's .tools.

    Debian's plain busybox, which excludes busybox-static, has neither; scripts/system-packages unpacks the other one.
    """
    named = os.environ.get("TIDEGATE_BUSYBOX")
    unpacked = Path(__file__).parents[3] / ".tools/bin/busybox"
    candidates = [named] if named else [find("busybox"), str(unpacked)]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK) and _is_static(candidate) and _has_crond(candidate):
            return candidate
    raise LabUnavailable(
        f"TIDEGATE_BUSYBOX={named} is not a static busybox with crond"
        if named
        else "no static busybox with crond: run scripts/system-packages, or apt-get install busybox-static"
    )


def may_use_namespaces() -> bool:
    """Whether this process may make namespaces as it is; if not, the lab makes itself a user namespace first."""
    try:
        effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    except (OSError, StopIteration):
        return False
    capabilities = int(effective.split()[1], 16)
    return all(capabilities >> bit & 1 for bit in (12, 21))  # CAP_NET_ADMIN, CAP_SYS_ADMIN


def obstacles() -> list[str]:
    """Everything that keeps a lab from running here, each with what to do about it. Empty: a lab will run."""
    if platform.system() != "Linux":
        return [f"network namespaces need Linux, this is {platform.system()}"]
    found = []
    for program in _ON_THE_HOST | ON_THE_ROUTER:
        try:
            need(program)
        except LabUnavailable as missing:
            found.append(str(missing))
    try:
        busybox()
    except LabUnavailable as missing:
        found.append(str(missing))
    return found or _kernel_obstacles()


def _kernel_obstacles() -> list[str]:
    user = [] if may_use_namespaces() else ["--user", "--map-root-user"]
    unshare = [need("unshare"), *user, "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
    first = subprocess.run([*unshare, "true"], check=False, capture_output=True, text=True, timeout=20)
    if first.returncode:
        return [f"{first.stderr.strip()}: {_why_no_namespaces()}"]
    probe = subprocess.run(
        [*unshare, "sh", "-c", f"exec 3>&1 >/dev/null; {_PROBE}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
        env=environment(),
    )
    last = probe.stdout.splitlines()[-1] if probe.stdout.strip() else "starting a shell"
    return [f"{last} failed: {probe.stderr.strip()}"] if probe.returncode else []


def _why_no_namespaces() -> str:
    if may_use_namespaces():
        return "this kernel lacks namespaces (CONFIG_NAMESPACES, CONFIG_NET_NS, CONFIG_PID_NS)"
    for knob, forbidding in (
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
    ):
        path = Path("/proc/sys", knob)
        if path.exists() and path.read_text().strip() == forbidding:
            return f"user namespaces are forbidden here by {path} = {forbidding}; allow them, or run as root"
    return "user namespaces are missing (CONFIG_USER_NS) or a container forbids them; run as root, a container --privileged"


def _is_static(program: str) -> bool:
    """Whether an ELF program needs no loader: PT_INTERP, which names it, stands at the file's beginning."""
    with open(program, "rb") as file:
        return b"/ld-" not in file.read(4096)


def _has_crond(program: str) -> bool:
    listed = subprocess.run([program, "--list"], check=False, capture_output=True, text=True, timeout=10)
    return "crond" in listed.stdout.split()
