"""Removes from installed packages what no stage uses: `python trim.py SITE_PACKAGES`, while an image is built.

Prints what each cut bought. A cut that finds nothing in a package that is there fails the build: the package has
changed, and the cut must be looked at again. That what is left works is for `smoke.py` to show.
"""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}  # buckets, and the ways to say who one is


def other_folders(package: Path, keep: set[str]) -> Iterable[Path]:
    return (path for path in package.iterdir() if path.is_dir() and path.name not in keep)


CUTS = (
    ("Box2D", "examples", lambda at: at.glob("examples")),
    (
        "ai_edge_litert",
        "accelerators and tools for other devices",
        lambda at: _named(at, "*WebGpu*", "tools", "vendors"),
    ),
    ("botocore", "other services than S3's", lambda at: other_folders(at / "data", SERVICES)),
    ("llvmlite", "tests", lambda at: at.glob("tests")),
    ("matplotlib", "tests and sample data", lambda at: _named(at, "tests", "mpl-data/sample_data")),
    ("numba", "tests", lambda at: at.glob("tests")),
    ("numpy", "tests", lambda at: at.rglob("tests")),
    ("nvidia", "headers and static libraries", lambda at: _named(at, "*/include", "**/*.a")),
    ("pygame", "tests, examples and documentation", lambda at: _named(at, "tests", "examples", "docs")),
    ("tensorflow", "headers", lambda at: at.glob("include")),
    ("zstandard", "the second of two equal backends", lambda at: at.glob("_cffi.*.so")),
)


def _named(package: Path, *patterns: str) -> Iterable[Path]:
    return (path for pattern in patterns for path in package.glob(pattern))


def trim(site: Path) -> list[tuple[str, int]]:
    """(what, bytes) of every cut made in the packages under `site`. Raises SystemExit for one that finds nothing."""
    made = []
    for name, what, find in CUTS:
        if not (site / name).is_dir():
            continue
        paths = list(find(site / name))
        if not paths:
            raise SystemExit(f"trim: {name} has no {what} any more: look at the cut in images/trim.py again")
        made.append((f"{name}: {what}", sum(_remove(path) for path in paths)))
    return made


def _remove(path: Path) -> int:
    """Bytes that were freed."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return size


if __name__ == "__main__":
    for what, size in trim(Path(sys.argv[1])):
        print(f"{size / 1e6:7.1f} MB  {what}")
