"""A program of the lab's: runs another one for which setgroups() always succeeds and does nothing.

Called as `setgroups.py PROGRAM ARGUMENT...`. In a user namespace made by a plain user, the kernel forbids setgroups(),
and dropbear, which calls it for everyone who logs in as it does for root, would hang up. There is one user in there
and it has no groups to give away, so nothing is lost by pretending. Done with a seccomp filter, which programs started
by it inherit.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

# machine -> (AUDIT_ARCH of linux/audit.h, number of setgroups)
MACHINES = {"x86_64": (0xC000003E, 116), "aarch64": (0xC00000B7, 159), "riscv64": (0xC00000F3, 159)}

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_ALLOW = 0x7FFF0000
_ANSWER_ZERO = 0x00050000  # SECCOMP_RET_ERRNO with no error


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def pretend() -> None:
    """Install the filter in this process. Raises OSError if the kernel refuses."""
    architecture, setgroups = MACHINES[platform.machine()]
    filter_ = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LOAD_WORD, 0, 0, 4),  # seccomp_data.arch
            (_JUMP_IF_EQUAL, 0, 3, architecture),
            (_LOAD_WORD, 0, 0, 0),  # seccomp_data.nr
            (_JUMP_IF_EQUAL, 0, 1, setgroups),
            (_RETURN, 0, 0, _ANSWER_ZERO),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    program = _Program(len(filter_) // 8, filter_)
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "seccomp")


def main() -> None:
    """Pretend, and become the program."""
    pretend()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - there is no shell to start it with


if __name__ == "__main__":
    main()
