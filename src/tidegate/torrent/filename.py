"""Which file names a torrent may bring: those that stay below its folder on every file system and look like what they are.

SEC-22. A name is refused rather than mended: what is stored is what the torrent says, so other clients find the same files.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

NAME_LIMIT: Final = 255  # bytes; NAME_MAX of every common file system
PATH_LIMIT: Final = 4_096  # bytes; PATH_MAX

# Device names that Windows takes for the device in any folder, with any ending.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(\..*)?", re.IGNORECASE)

# Marks that reorder the text around them: "photo\u202egpj.exe" is shown as "photoexe.jpg".
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def fault(name: bytes) -> str | None:
    """What is wrong with one part of a path; None where nothing is."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return "a file name must be UTF-8"
    if text in ("", ".", ".."):
        return "a file name must not be empty, '.' or '..'"
    if len(name) > NAME_LIMIT:
        return f"a file name is limited to {NAME_LIMIT} bytes"
    if "/" in text or "\\" in text:
        return "a file name must not contain a slash or backslash"
    if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") or sign in _REORDERING for sign in text):
        return "a file name must not contain control or reordering characters"
    if _RESERVED.fullmatch(text.rstrip(" .")):
        return "this name is a device on some systems"
    return None


def folded(path: Sequence[bytes]) -> tuple[str, ...]:
    """The path as a file system sees it that knows no difference of case or of composed and decomposed letters."""
    return tuple(unicodedata.normalize("NFC", unicodedata.normalize("NFC", part.decode()).casefold()) for part in path)


def shown(text: str, limit: int = 200) -> str:
    """A stranger's text as one line that does nothing to the terminal or page that shows it."""
    return "".join(sign for sign in text if sign.isprintable() and sign not in _REORDERING)[:limit]
