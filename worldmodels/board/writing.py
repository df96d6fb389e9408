"""The page as static files, for a bucket or a web server: no server of ours is needed to read them."""

import os
import uuid
from pathlib import Path

from jinja2 import Environment, PackageLoader

from ..errors import CorruptArtifact, MissingInput, StoreError
from ..store.causes import explain
from .server import ASSETS, POLICY
from .watching import Watch


def write(watch: Watch, folder: Path) -> int:
    """Write index.html, what it needs and its films; return the bytes. Raise StoreError if either place fails."""
    watch.refuse_inside(folder, "wm board --write ./board")
    watch.look(everything=True)
    if watch.error:
        raise StoreError(watch.error)
    details = watch.details
    state = {**watch.document(details), "after": None}
    page = Environment(loader=PackageLoader(__package__), autoescape=True).get_template("page.html")
    files = {name: (Path(__file__).parent / "static" / name).read_bytes() for name in ASSETS}
    for more in details.values():
        for film in list(more["films"]):
            try:
                found = watch.film(film["address"])
                files[film["address"]] = found.read() if found else b""
            except (CorruptArtifact, MissingInput):
                more["films"].remove(film)
    files["index.html"] = page.render(state=state, policy=POLICY).encode()
    try:
        return sum(_write(folder / name, data) for name, data in files.items())
    except OSError as error:
        reason, command = explain(error, str(folder))
        raise StoreError(f"--write {folder}: {reason}", next=command) from error


def _write(path: Path, data: bytes) -> int:
    """Replace the file at once, so that a web server never sends half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return len(data)
