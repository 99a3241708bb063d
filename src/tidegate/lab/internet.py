"""The lab's internet: a provider's end of the router's line, and everything that a client could want to reach.

- The sites of `network.SITES`, each with addresses of its own. TCP ports 80, 443 and 853 of every one answer with plain
  HTTP (`/` a page, `/big` 1 GiB): what is on 443 and 853 is there to be reached or not, it speaks no TLS.
- The public resolvers of `network.RESOLVERS` and the provider's own: DNS over UDP and TCP 53, all with the same answers.
- iperf3 on its usual port at `ipv4` and `ipv6`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tidegate.lab.box import Box
from tidegate.lab.host import Host
from tidegate.lab.network import LAN6, PROVIDER, RESOLVERS, ROUTER_WAN, SITES, Site
from tidegate.lab.support import busybox, need

_HTTP_PORTS: Final = (80, 443, 853)


class Internet(Host):
    """Everything beyond the router's line. `ipv4` and `ipv6` are example.com's."""

    def __init__(self, box: Box) -> None:
        super().__init__(box, "internet", SITES["example.com"].ipv4, SITES["example.com"].ipv6)

    @property
    def sites(self) -> Mapping[str, Site]:
        """The names that exist, with where they lead; their subdomains lead there too."""
        return SITES

    def start(self) -> None:
        """Give the internet its addresses and start its servers; all of them listen when this returns."""
        self._box.path("/run/lab/internet-dns.conf").write_text(_dns_configuration())
        web = self._box.path("/run/lab/web")
        web.mkdir()
        (web / "index.html").write_text("<!doctype html><title>The lab's internet</title><p>You have reached it.\n")
        with (web / "big").open("wb") as big:
            big.truncate(1 << 30)
        # httpd and dnsmasq go into the background once they listen.
        servers = [f"{busybox()} httpd -p [::]:{port} -h /run/lab/web" for port in _HTTP_PORTS]
        servers.append(f"{need('dnsmasq')} -C /run/lab/internet-dns.conf")
        # A UDP server on a machine of many addresses must bind the one it is asked at, or it answers from another.
        servers += [f"{need('iperf3')} -s -D -B {address}" for address in (self.ipv4, self.ipv6)]
        self._box.script(f"ip -batch - <<'END'\n{_addresses()}\nEND\n" + "\n".join(servers), net=self.name)


def _addresses() -> str:
    everywhere = {*SITES.values(), *RESOLVERS}
    batch = ["link set lo up", f"address add {PROVIDER[0]}/24 dev isp", f"address add {PROVIDER[1]}/64 dev isp nodad"]
    # Not on lo: libtorrent binds its sockets to the device that bears the address it listens on.
    batch += [f"address add {site.ipv4}/32 dev isp" for site in everywhere]
    batch += [f"address add {site.ipv6}/128 dev isp nodad" for site in everywhere]
    return "\n".join([*batch, "link set isp up", f"route add {LAN6} via {ROUTER_WAN[1]} dev isp"])


def _dns_configuration() -> str:
    lines = ["user=root", "group=root", "pid-file=", "no-resolv", "no-hosts", "local-ttl=60", "local=/#/"]
    for name, site in SITES.items():
        lines += [f"address=/{name}/{site.ipv4}", f"address=/{name}/{site.ipv6}"]
    return "\n".join([*lines, ""])
