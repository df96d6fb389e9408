"""Makes a release's files and publishes nothing: `make release`.

    python images/release.py FOLDER

It takes the commit that HEAD's tag names: wheel, source distribution, images where a tool works, bills of materials,
release notes out of CHANGELOG.md, and a sum of every file. It stops before all that if the version in
worldmodels/__init__.py, CHANGELOG.md and the tag differ, or if files have changed since the commit.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import build
from build import ROOT, ask

SUMS, NOTES = "SHA256SUMS", "notes.md"


class Refused(SystemExit):
    """An error, and the next command."""

    def __init__(self, message: str, next: str) -> None:
        super().__init__(f"release: {message}\nnext: {next}")


def version() -> str:
    """The version that the wheel gets, from the source."""
    return re.search(r'^__version__ = "(.+)"$', (ROOT / "worldmodels/__init__.py").read_text(), re.M)[1]


def sections(changelog: str) -> dict[str, str]:
    """The text below each `## VERSION` heading; a date may follow the version."""
    parts = re.split(r"^## (\S+).*\n", changelog, flags=re.M)[1:]
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def differences(wanted: str, changelog: dict[str, str], tags: list[str], changed: str) -> Iterator[tuple[str, str]]:
    """Everything that disagrees with the version, each with the next command."""
    if changed:
        yield f"files have changed since the commit: {', '.join(changed.splitlines()[:5])}", "git status"
    if not changelog.get(wanted):
        yield f"CHANGELOG.md has no section `## {wanted}` with text", "git log --oneline"
    if changelog.get("Unreleased"):
        yield (
            f"CHANGELOG.md still has changes below `## Unreleased`; they belong below `## {wanted}`",
            "git log --oneline",
        )
    if f"v{wanted}" not in tags:
        there = f"has {', '.join(tags)}" if tags else "has no tag"
        yield f"the version is {wanted}, and HEAD {there}", f"git tag --annotate v{wanted} --message 'wm {wanted}'"


def check(wanted: str) -> str:
    """The release notes' text; raises Refused if version, change log and tag differ."""
    changelog = sections((ROOT / "CHANGELOG.md").read_text())
    tags = ask("git", "tag", "--points-at", "HEAD", "--list", "v*").split()
    if found := list(differences(wanted, changelog, tags, ask("git", "status", "--porcelain"))):
        raise Refused("\n         ".join(what for what, _ in found), found[0][1])
    return changelog[wanted]


def distributions(folder: Path, scratch: Path) -> None:
    """Wheel and source distribution of the commit, which know their revision; the wheel is installed and started."""
    tree, archive, installed = scratch / "tree", scratch / "tree.tar", scratch / "installed"
    do("git", "archive", "--output", archive, "HEAD", cwd=ROOT)
    with tarfile.open(archive) as tar:
        tar.extractall(tree, filter="data")
    (tree / "worldmodels/_revision").write_text(build.revision())
    do(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", folder, cwd=tree)
    (wheel,) = folder.glob("*.whl")
    do(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", installed, wheel)
    environment = os.environ | {"PYTHONPATH": str(installed)}
    do(sys.executable, "-P", "-m", "wm", "--version", cwd=scratch, env=environment)


def images(options: argparse.Namespace) -> Iterator[str]:
    """Build the images and yield a line for each; without a tool, say why there are none."""
    try:
        tool = build.choose(options.tool)
    except build.Failed as error:
        print(f"release: without images. {error}", flush=True)
        return
    build.build_all(tool, options)
    for image in build.chosen(options):
        name = image.tagged(build.revision())
        yield f"{name}  {build.describe(tool, name)}"


def do(*command: str | Path, **options: Any) -> None:
    if code := subprocess.run(command, **options).returncode:
        raise Refused(f"`{' '.join(map(str, command))}` failed ({code}); it says why above", "make release")


def sums(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (SUMS, NOTES))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}" for path in files]
    return "".join(f"{line}\n" for line in lines)


def notes(wanted: str, changes: str, listed: str, built: list[str]) -> str:
    blocks = {"Files": listed.splitlines(), "Images": built}
    parts = [f"## {title}\n\n```\n{chr(10).join(lines)}\n```" for title, lines in blocks.items() if lines]
    return "\n\n".join([f"# wm {wanted}", changes, *parts]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    build.add_options(parser)
    options = parser.parse_args()
    wanted = version()
    changes, folder = check(wanted), options.folder.absolute()
    if folder.exists() and any(folder.iterdir()):
        raise Refused(f"{options.folder} is not empty", f"rm -r {options.folder}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        distributions(folder, Path(scratch))
    built = list(images(options)) if options.images.split() else []
    asked = ["--tool", options.tool] if built else ["--locks-only"]  # an image at hand may be of another commit
    bills = [str(ROOT / "images/sbom.py"), str(folder / "sbom"), "--tensorflow", options.tensorflow, *asked]
    do(sys.executable, *bills)
    (folder / SUMS).write_text(sums(folder))
    (folder / NOTES).write_text(notes(wanted, changes, (folder / SUMS).read_text(), built))
    print("\n".join(str(path) for path in sorted(options.folder.rglob("*")) if path.is_file()))


if __name__ == "__main__":
    main()
