"""The site of these pages, by Sphinx: `make site`. Every warning is an error there, links and anchors included."""

from pathlib import Path
from typing import Any

from sphinx.addnodes import pending_xref

project = html_title = "wm"
extensions = ["myst_parser"]
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 4  # as GitHub names them
nitpicky = True

DOCS = Path(__file__).parent


def keep_texts(app: Any, page: Any) -> None:
    """Replace links to the repository's files outside of docs/ by their texts; a link to no file stays an error."""
    for link in list(page.findall(pending_xref)):
        target = str(link["reftarget"])
        if any(target and (folder / target).exists() for folder in (DOCS, DOCS.parent)):  # README.md is a page, too
            link.replace_self(link.children)


def setup(app: Any) -> None:
    app.connect("doctree-read", keep_texts)
