"""Escaping of text from stores, pods and events, so that it cannot control a terminal or forge a line on it."""

import logging
import re

# Invisible characters: C0 and C1 controls (so escape sequences), line and paragraph separators, marks that turn the
# direction of the text after them, other invisible formatting, tags, and halves of surrogate pairs.
UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def plain(text: object, keep: str = "") -> str:
    r"""Return the text with every invisible character as its escape, like `\x1b` or `\u202e`.

    Characters in `keep` stay: "\n\t" where whole lines are printed.
    """
    return UNSEEN.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), str(text))


class Formatter(logging.Formatter):
    """A formatter whose log lines are safe to print on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record), keep="\n\t")


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
