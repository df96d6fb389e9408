"""Prose that names its actors: README, docs, docstrings, comments and messages."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BEGINS = re.compile(r"(?:^|(?<=[.!?:|#] )|(?<=\*\* ))(Who|Whoever|What|Nobody|Somebody|Anybody)\b", re.MULTILINE)
PERSONS = re.compile(r"\b(whoever|nobody|somebody|anybody)\b", re.IGNORECASE)
METAPHORS = re.compile(r"\b(heirs?|hungry|breathes?)\b", re.IGNORECASE)
CODE = re.compile(r"```.*?```|`[^`\n]*`|^    .*$", re.DOTALL | re.MULTILINE)


FOLDERS = ("worldmodels", "cli", "bench", "images", "tests")
FILES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "docs/*.md", *(f"{folder}/**/*.py" for folder in FOLDERS))
    for path in sorted(ROOT.glob(pattern))
    if path != Path(__file__)
]


def paragraphs(name: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of a page's prose, of docstrings and of comments."""
    source = (ROOT / name).read_text()
    if name.endswith(".md"):
        text = CODE.sub(lambda found: "\n" * found[0].count("\n"), source)
        yield from enumerate(text.splitlines(), 1)
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), re.sub(r"`[^`]*`", "", text)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


@pytest.mark.parametrize("name", FILES)
def test_sentences_name_their_actor(name: str) -> None:
    found = [
        f"{name}:{line}: {match[0]!r} in {text.strip()[:100]!r}"
        for line, text in paragraphs(name)
        for pattern in (BEGINS, PERSONS, METAPHORS)
        for match in pattern.finditer(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("worldmodels", "cli"))])
def test_messages_name_their_actor(name: str) -> None:
    nodes = ast.walk(ast.parse((ROOT / name).read_text()))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [text for text in texts if PERSONS.search(text)]
