"""Builds the router's read-only system: the files of `rom/` here, busybox for everything small, Debian's network tools.

The big programs are not copied. The host's /usr lies read-only at /rom/usr, and /usr/sbin/nft and its like are links
into it, so that building takes milliseconds and memory holds one copy.

Debian's static busybox runs its own `tc`, `ip`, `env` and so on from inside its shell, whatever PATH says. /bin/sh is
therefore dash by default, and /bin/ash is busybox's; `shell="ash"` makes ash the /bin/sh as on OpenWrt, where scripts
have to call /sbin/ip, /usr/sbin/tc and /usr/sbin/nft by their paths.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final, Literal

from tidegate.lab import network
from tidegate.lab.network import Place
from tidegate.lab.support import ON_THE_ROUTER, LabUnavailable, busybox, find, need

Shell = Literal["dash", "ash"]
Lack = Literal["nft", "nft's json", "ipset", "conntrack", "htb"]
"""What a router may lack. Without nft its firewall is one of iptables."""
Tables = Literal["legacy", "nft"]
"""Which iptables it has: the one of the kernel's own tables, or the one that writes them as nftables."""

_SKELETON: Final = Path(__file__).with_name("rom")
_DIRECTORIES: Final = (
    *("bin", "sbin", "dev", "proc", "sys", "tmp", "mnt", "root", "rom/usr", "usr/bin", "usr/sbin", "usr/lib", "usr/share"),
    *("etc/rc.d", "etc/crontabs", "etc/dropbear", "etc/dnsmasq.d"),
)
_LINKS: Final = {"var": "tmp", "run": "tmp/run", "lib": "usr/lib", "lib64": "usr/lib64"}
# Where OpenWrt has them; anything else of the host's goes to the folder it has there.
_PLACES: Final = {"ip": "sbin/ip", "tc": "sbin/tc", "dash": "bin/dash"}
_ALSO: Final = {"tc": "usr/sbin/tc", "ip": "usr/sbin/ip"}
# Linked where the host has them: the tools of routers without nft.
_IF_PRESENT: Final = ("ipset", "dropbearkey", "bridge", "timeout")
_IPTABLES: Final = tuple(f"{tables}{verb}" for tables in ("iptables", "ip6tables") for verb in ("", "-save", "-restore"))
# A kernel without sch_htb says so to whoever asks for it, and so does an nft that was built without JSON.
_WITHOUT: Final[dict[Lack, tuple[str, str, str]]] = {
    "htb": ("sbin/tc", " htb ", "Error: Specified qdisc kind is unknown."),
    "nft's json": ("usr/sbin/nft", " -j ", "Error: JSON support not compiled-in"),
}
_PARTLY: Final = """#!/bin/sh
case " $* " in *"{word}"*) echo "{said}" >&2; exit 2 ;; esac
exec /{place}-whole "$@"
"""


def build(
    rom: Path,
    places: list[Place],
    *,
    shell: Shell,
    lacks: frozenset[Lack],
    tables: Tables,
    lan_mac: str,
    password: str,
) -> None:
    """Fill an empty directory with the router's system."""
    shutil.copytree(_SKELETON, rom, dirs_exist_ok=True)
    for script in (rom / "etc/init.d").iterdir():
        script.chmod(0o755)  # a wheel does not keep the bit
    for directory in _DIRECTORIES:
        (rom / directory).mkdir(parents=True, exist_ok=True)
    for link, target in _LINKS.items():
        (rom / link).symlink_to(target)
    _link_libraries(rom)
    _link_programs(rom, lacks, tables)
    _install_busybox(rom)
    (rom / "bin/sh").symlink_to("dash" if shell == "dash" else "busybox")
    (rom / "root").chmod(0o700)
    (rom / "etc/shadow").write_text(f"root:{_hash(password)}:20000:0:99999:7:::\n")
    (rom / "etc/shadow").chmod(0o600)
    (rom / "etc/network.conf").write_text(_network_configuration(lan_mac))
    (rom / "etc/dnsmasq.lab").write_text(_dnsmasq_configuration(places))


def _link_libraries(rom: Path) -> None:
    for multiarch in Path("/usr/lib").glob("*-linux-*"):
        (rom / "usr/lib" / multiarch.name).symlink_to(f"/rom{multiarch}")
    for directory in ("lib64", "share/zoneinfo"):
        if Path("/usr", directory).is_dir():
            (rom / "usr" / directory).symlink_to(f"/rom/usr/{directory}")


def _link_programs(rom: Path, lacks: frozenset[Lack], tables: Tables) -> None:
    for program in ON_THE_ROUTER:
        if program not in lacks:
            _link_program(rom, program, need(program))
    for program in _IF_PRESENT:
        found = find(program)
        if found is not None and program not in lacks:
            _link_program(rom, program, found)
    for program in _IPTABLES:
        name, _, verb = program.partition("-")
        variant = f"{name}-{tables}-{verb}".rstrip("-")
        found = need(variant) if "nft" in lacks else find(variant)
        if found is not None:
            _link_program(rom, program, found)
    for place, word, said in (part for lack, part in _WITHOUT.items() if lack in lacks):
        (rom / place).rename(rom / f"{place}-whole")
        (rom / place).write_text(_PARTLY.format(word=word, said=said, place=place))
        (rom / place).chmod(0o755)
        if (other := _ALSO.get(Path(place).name)) and other != place:
            (rom / other).unlink()
            (rom / other).symlink_to(f"/{place}")


def _link_program(rom: Path, program: str, found: str) -> None:
    # Followed to its end on the host: the alternatives in between are absolute links of the host's. Programs of many
    # names go by the name they are called by, which is the link's.
    real = os.path.realpath(found)
    if not real.startswith("/usr/"):
        raise LabUnavailable(f"{program} is {real}, and the lab's router can only use what is under /usr")
    place = _PLACES.get(program, f"usr/{'sbin' if '/sbin/' in found else 'bin'}/{program}")
    for link in {place, _ALSO.get(program, place)}:
        (rom / link).symlink_to(f"/rom{real}")


def _install_busybox(rom: Path) -> None:
    shutil.copy(busybox(), rom / "bin/busybox")
    taken = {path.name for folder in ("bin", "sbin", "usr/bin", "usr/sbin") for path in (rom / folder).iterdir()}
    listed = subprocess.run([busybox(), "--list-full"], capture_output=True, text=True, check=True, timeout=10)
    for applet in map(Path, listed.stdout.split()):
        if applet.name not in taken | {"sh", "dpkg", "dpkg-deb", "rpm", "linuxrc"}:
            (rom / applet).symlink_to("/bin/busybox")


def _hash(password: str) -> str:
    hashed = subprocess.run(
        [busybox(), "mkpasswd", "-m", "sha512", "-P", "0"],
        input=password,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return hashed.stdout.strip()


def _network_configuration(lan_mac: str) -> str:
    values = {
        "LAN": network.LAN,
        "LAN_MAC": lan_mac,
        "LAN_IPV4": network.ROUTER_LAN[0],
        "LAN_IPV6": network.ROUTER_LAN[1],
        "WAN": network.WAN,
        "WAN_IPV4": network.ROUTER_WAN[0],
        "WAN_IPV6": network.ROUTER_WAN[1],
        "PROVIDER_IPV4": network.PROVIDER[0],
        "PROVIDER_IPV6": network.PROVIDER[1],
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _dnsmasq_configuration(places: list[Place]) -> str:
    lines = [f"interface={network.LAN}", *(f"server={address}" for address in network.PROVIDER)]
    lines += ["dhcp-range=192.168.1.200,192.168.1.249,12h", f"dhcp-range=::,constructor:{network.LAN},ra-stateless"]
    lines += [f"host-record=router,router.lan,{','.join(network.ROUTER_LAN)}"]
    for place in places:
        lines.append(f"dhcp-host={place.mac},{place.ipv4},{place.name}")
        lines.append(f"host-record={place.name},{place.name}.lan,{place.ipv4},{place.ipv6}")
    return "\n".join([*lines, ""])
