"""The page: sections and tables as one self-contained HTML file, which `templates/report.html` lays out.

Templates escape every text. Only `inline` returns markup that they insert unchanged: a drawing by `figures.py`.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .figures import THEME, Picture

FORMATS = {"png": "image/png", "webp": "image/webp"}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `role` is empty, `look` for a hint to readers, or `missing` for a part that is not there."""

    text: str
    role: str = ""


@dataclass(frozen=True)
class Code:
    """Text in a fixed-width font, with its ends of lines."""

    text: str


@dataclass(frozen=True)
class Tiles:
    """Large numbers: (number, label, detail) of each."""

    tiles: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Table:
    """A table that scrolls sideways on a narrow screen."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figures:
    """Pictures with captions, side by side if the screen is wide enough."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Details:
    """Parts that are collapsed under the line `summary`."""

    summary: str
    body: "Sequence[Part]"


Part = Paragraph | Code | Tiles | Table | Figures | Details


@dataclass(frozen=True)
class Section:
    """A titled part of the page; `look` is a hint to readers."""

    title: str
    look: str
    body: Sequence[Part]

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


class Svg(NamedTuple):
    """A drawing's viewBox, and its markup behind the opening tag."""

    box: str
    body: Markup


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the whole page."""
    pages = Environment(
        loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    pages.filters |= {"inline": inline, "data_uri": data_uri}
    pages.tests |= {part.__name__.lower(): lambda it, part=part: isinstance(it, part) for part in get_args(Part)}
    pages.tests["drawing"] = lambda picture: picture.name.endswith(".svg")
    return pages.get_template("report.html").render(title=title, subtitle=subtitle, sections=sections, theme=THEME)


def inline(picture: Picture) -> Svg:
    """Return the drawing for the page: its colours as CSS variables, its ids made unique, its size left to the page."""
    text = picture.data.decode()
    name = picture.name.removesuffix(".svg")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", FONTS, text)
    for key, (light, _) in THEME.items():
        text = text.replace(light, f"var(--{key})")
    opening = re.search(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', text)
    assert opening  # matplotlib wrote it
    return Svg(opening[1], Markup(text[opening.end() :]))


def data_uri(data: bytes, name: str) -> str:
    """Return the content of a picture as a URI; the suffix of `name` gives its format."""
    return f"data:{FORMATS[name.rpartition('.')[2]]};base64,{base64.b64encode(data).decode()}"
