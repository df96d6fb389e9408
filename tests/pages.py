"""The code of a page in docs/, as a reader copies it."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"# (\S+\.toml)\n")


@dataclass(frozen=True)
class Page:
    """`blocks` are (language, text) in order; `lines` the lines of the shell's, each with what it continues on."""

    text: str

    @classmethod
    def named(cls, name: str) -> "Page":
        return cls((ROOT / "docs" / f"{name}.md").read_text())

    @property
    def blocks(self) -> list[tuple[str, str]]:
        return FENCED.findall(self.text)

    @property
    def lines(self) -> list[str]:
        shell = [re.sub(r"\\\n\s*", "", text) for kind, text in self.blocks if kind == "sh"]
        return [line for text in shell for line in text.splitlines()]

    @property
    def files(self) -> dict[str, str]:
        """The blocks that begin with a file's name in a comment, by that name."""
        return {found[1]: text for _, text in self.blocks if (found := NAMED.match(text))}
