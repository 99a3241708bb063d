"""How a router lets this daemon in: to its agent and to nothing else (SEC-32).

The line of our key in authorized_keys names what is run in place of whatever was asked for: the agent's gate
(`agent/gate.sh`), which takes the agent's own verbs and refuses the rest with one line. Where there is no agent yet, or one
that lost its text, the line itself takes one in whose checksum is right, so that it can be placed before anything else is.

What this does not keep out: whoever has the key and speaks as we do can put another agent in the place of ours, and that one
runs as root. It is so on purpose: an update of the daemon brings a new agent, and a router must not fall out of care until
somebody types its password.

Its options are those that dropbear and OpenSSH both know: dropbear refuses a key whose line has one that it does not know.
"""

from __future__ import annotations

from tidegate.errors import Refused
from tidegate.router.agent import LARGEST, PATH
from tidegate.router.shell import Shell
from tidegate.router.statefile import legible

# No double quote and no backslash: the whole stands in quotes, and servers differ in how they read those.
_GATE = (
    f"a={PATH};[ -s $a ]&&exec /bin/sh $a gate;"
    "case $SSH_ORIGINAL_COMMAND in '/bin/sh '$a' - install '*)umask 022;"
    f"mkdir -p ${{a%/*}};head -c {LARGEST} >$a.$$;s=$(sha256sum <$a.$$);"
    "case $SSH_ORIGINAL_COMMAND in *' '${s%% *})mv $a.$$ $a;echo tidegate-agent - ok;;*)rm $a.$$;;esac;;esac"
)
_OPTIONS = f'command="{_GATE}",no-pty,no-port-forwarding,no-agent-forwarding,no-X11-forwarding'

# The base64 text of our key and the line that is to stand for it come on stdin. OpenWrt's dropbear reads its own file, others
# the user's. Each file is changed whole: power may fail.
_PLACE = """
umask 077; read -r key && read -r line || exit 1
put() {
  grep -qxF "$line" "$1" 2>/dev/null && return
  [ ! -f "$1" ] || cp -p "$1" "$1.tidegate" || return
  with_ours "$1" >"$1.tidegate"
  [ "$(with_ours "$1" | sha256sum)" = "$(sha256sum <"$1.tidegate")" ] && sync && mv "$1.tidegate" "$1" && return
  rm -f "$1.tidegate"; return 1
}
with_ours() { [ ! -f "$1" ] || grep -vF "$key" "$1"; echo "$line"; }
mkdir -p "$HOME/.ssh" && put "$HOME/.ssh/authorized_keys" || exit 1
[ ! -d /etc/dropbear ] || put /etc/dropbear/authorized_keys
"""


def sealed(line: str) -> str:
    """The line for authorized_keys that lets a key (`line`, as in a .pub file) at the agent alone."""
    return f"{_OPTIONS} {line}"


async def place(shell: Shell, key: str, line: str) -> None:
    """Put the line of our key, whose base64 text is `key`, where the SSH server reads it, in place of the one that is there.

    `shell` may run anything. Raises Refused where it can't be written.
    """
    result = await shell.run(["/bin/sh", "-c", _PLACE], f"{key}\n{line}\n".encode())
    if result.status != 0:
        said = legible(result.err or result.out).strip()[:200]
        raise Refused(f"our key can't be put onto the router: {said or f'status {result.status}'}")
