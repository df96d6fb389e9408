"""The page: sections and tables as one self-contained HTML file."""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from .figures import THEME, Picture

KINDS = {"png": "image/png", "webp": "image/webp"}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


Part = str | list[Picture]


@dataclass(frozen=True)
class Section:
    """A titled part of the page: `look` is a hint for readers, `body` is HTML and lists of pictures."""

    title: str
    look: str
    body: Sequence[Part]


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the whole page."""
    parts = "\n".join(_section(section) for section in sections)
    links = " ".join(f'<a href="#{_anchor(s.title)}">{escape(s.title)}</a>' for s in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{_css()}</style>
</head>
<body>
<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p><nav aria-label="Sections">{links}</nav></header>
<main>
{parts}
</main>
</body>
</html>
"""


def paragraph(text: str, kind: str = "") -> str:
    """Return plain text as a paragraph of class `kind`."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def tiles(values: Iterable[tuple[str, str, str]]) -> str:
    """Return tuples of (number, label, detail) as large numbers."""
    cells = (
        f'<div class="tile"><dt>{escape(label)}</dt>'
        f"<dd><b>{escape(number)}</b><small>{escape(detail)}</small></dd></div>"
        for number, label, detail in values
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table that scrolls sideways on a narrow screen."""
    top = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    label = escape(", ".join(head), quote=True)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def details(summary: str, body: str) -> str:
    """Return `body` (HTML), collapsed under the line `summary`."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def preformatted(text: str) -> str:
    """Return text unchanged in a fixed-width font."""
    return f'<pre tabindex="0">{escape(text)}</pre>'


def _section(section: Section) -> str:
    anchor = _anchor(section.title)
    body = "".join(part if isinstance(part, str) else _figures(part) for part in section.body)
    look = f'<p class="look">{escape(section.look)}</p>' if section.look else ""
    return (
        f'<section id="{anchor}" aria-labelledby="{anchor}-title">'
        f'<h2 id="{anchor}-title">{escape(section.title)}</h2>{look}{body}</section>'
    )


def _figures(pictures: Iterable[Picture]) -> str:
    """Return pictures with captions, side by side if the screen is wide enough."""
    return '<div class="figures">' + "".join(_figure(p) for p in pictures) + "</div>"


def _figure(picture: Picture) -> str:
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    body = _svg(picture) if picture.name.endswith(".svg") else _image(picture)
    return f"<figure{' class=wide' if picture.wide else ''}>{body}{caption}</figure>"


def _image(picture: Picture) -> str:
    kind = KINDS[picture.name.rpartition(".")[2]]
    image = f'<img src="{_data_uri(kind, picture.data)}" alt="{escape(picture.alt, quote=True)}">'
    if not picture.still:
        return image
    still = _data_uri("image/png", picture.still)
    return f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">{image}</picture>'


def _svg(picture: Picture) -> str:
    """Return the drawing inline: its colours as CSS variables, its ids made unique, its size left to the page."""
    text = picture.data.decode()
    name = picture.name.removesuffix(".svg")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", FONTS.replace('"', "'"), text)
    for key, (light, _) in THEME.items():
        text = text.replace(light, f"var(--{key})")
    label = escape(picture.alt, quote=True)
    head = re.search(r'viewBox="[^"]*"', text)
    box = head.group(0) if head else ""
    opening = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box} role="img" aria-label="{label}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _css() -> str:
    light, dark = ("".join(f"--{name}:{pair[i]};" for name, pair in THEME.items()) for i in (0, 1))
    return f":root{{{light}color-scheme:light dark}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}{RULES}"


RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:0 1rem 4rem;max-width:64rem;background:var(--paper);color:var(--ink);
 font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header{padding:2rem 0 1rem;border-bottom:1px solid var(--rule)}
h1{font-size:1.7rem;line-height:1.2;margin:0}
header p{color:var(--muted);margin:.35rem 0 .9rem;overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1rem;font-size:.9rem}
a{color:var(--blue)}
section{padding-top:1.9rem}
h2{font-size:1.25rem;margin:0 0 .3rem}
p{max-width:46rem;margin:.5rem 0}
.look{color:var(--muted);margin-top:0}
.missing{border-left:3px solid var(--orange);padding:.35rem .8rem;background:var(--panel)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin:1rem 0}
.tile{background:var(--panel);border-radius:.4rem;padding:.7rem .9rem}
.tile dt{font-size:.85rem;color:var(--muted)}
.tile dd{margin:0}
.tile b{display:block;font-size:1.5rem;line-height:1.3;font-variant-numeric:tabular-nums}
.tile small{color:var(--muted);font-size:.82rem;line-height:1.35;display:block}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1.2rem 1.5rem;
 margin:1rem 0;align-items:start}
figure{margin:0;min-width:0}
figure.wide{grid-column:1/-1}
figure svg{display:block;width:100%;height:auto;max-width:36rem}
figure img{display:block;max-width:100%;height:auto;border-radius:.3rem;image-rendering:auto}
figure.wide img{max-width:min(100%,46rem)}
figcaption{font-size:.88rem;line-height:1.45;color:var(--muted);margin-top:.4rem;max-width:46rem}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;min-width:100%}
th,td{text-align:left;padding:.35rem .9rem .35rem 0;border-bottom:1px solid var(--rule);vertical-align:top;
 white-space:nowrap}
th{font-weight:600;color:var(--muted)}
details{border-bottom:1px solid var(--rule);padding:.45rem 0}
summary{cursor:pointer;overflow-wrap:anywhere}
pre{font:.82rem/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--panel);padding:.7rem;
 border-radius:.4rem;overflow-x:auto;margin:.6rem 0}
:focus-visible{outline:2px solid var(--blue);outline-offset:2px}
@media print{details{break-inside:avoid}figure{break-inside:avoid}}
"""
