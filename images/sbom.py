"""Write the contents of each image, and a laptop's packages, as CycloneDX JSON, offline: `make sbom`.

    python images/sbom.py FOLDER

Python's packages come from the image's lock file, with their hashes. Where the image is at hand (`make build-images`),
it is asked what it really holds: the packages must be those of the lock file, and Debian's and Python itself are added.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from build import BASE, ROOT, Failed, Image, choose, describe, inside, revision

try:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from packageurl import PackageURL
except ModuleNotFoundError as error:
    raise Failed(f"a bill of materials needs the package {error.name}", "pip install --editable '.[sbom]'") from None

# Of the image's own Python, where pip is; and of the packages that it runs.
INSTALLED = """
import json, platform, sys
from importlib.metadata import distributions
paths = ["/opt/venv/lib/python3.11/site-packages", *(path for path in sys.path if path.startswith("/usr/local"))]
found = {path: sorted((each.name, each.version) for each in distributions(path=[path])) for path in paths}
print(json.dumps({"python": platform.python_version(), "packages": found}))
"""
NAME = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
VENV = "/opt/venv/lib/python3.11/site-packages"
DEBIAN = "${binary:Package}\\t${Version}\\t${Architecture}\\n"


def lock_of(image: Image) -> Path:
    return ROOT / f"images/requirements.{image.kind}{f'-{image.tensorflow}' * (image.kind == 'gpu')}.txt"


def locked(lock: Path) -> Bom:
    """List the lock file's packages."""
    # Its output goes on as objects; to check it against the schema takes ten times as long as to make it.
    options = ["--output-reproducible", "--no-validate"]
    command = [Path(sys.executable).parent / "cyclonedx-py", "requirements", lock, *options]
    made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for each in made["components"]:
        each.pop("description", None)  # the whole requirement, line by line
        each["bom-ref"] = each["purl"]
    bom: Bom = Bom.from_json({**made, "dependencies": []})
    return bom


def base() -> Component:
    """The image that the others are built on."""
    repository, _, digest = BASE.read_text().strip().partition("@")
    name, _, tag = repository.rpartition(":")
    url = PackageURL("oci", None, name.rpartition("/")[2], digest or None, {"repository_url": name, "tag": tag})
    return Component(name=name, version=digest or tag, type=ComponentType.CONTAINER, purl=url, bom_ref=f"{name}:{tag}")


def measured(tool: str, name: str, image: Image, bom: Bom) -> Iterator[Component]:
    """List the image's other packages. Raises Failed if the image does not hold the lock file's packages."""
    with inside(tool, name) as command:
        told = json.loads(_ask(*command, "python", "-c", INSTALLED))
        debian = [line.split("\t") for line in _ask(*command, "dpkg-query", "-W", "-f", DEBIAN).splitlines()]
    wanted = {(_plain(each.name), each.version) for each in bom.components}
    there = {(_plain(package), version) for package, version in told["packages"].pop(VENV)}
    if wanted != there:
        differ = ", ".join(f"{package} {version}" for package, version in sorted(wanted ^ there))
        raise Failed(f"{name} is not what {lock_of(image).name} says: {differ}", "make build-images")
    yield _component("generic", "python", told["python"])
    for packages in told["packages"].values():
        yield from (_component("pypi", package, version) for package, version in packages)
    for package, version, architecture in debian:
        yield _component("deb", package.partition(":")[0], version, "debian", arch=architecture)


def _component(kind: str, name: str, version: str, namespace: str | None = None, **qualifiers: str) -> Component:
    url = PackageURL(kind, namespace, name, version, qualifiers)
    return Component(name=name, version=version, type=ComponentType.LIBRARY, purl=url, bom_ref=str(url))


def _plain(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return name.lower().replace("_", "-").replace(".", "-")


def _ask(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def write(bom: Bom, whole: Component, path: Path) -> None:
    """Write the bill as that of `whole`, which consists of the bill's components."""
    bom.metadata.component = whole
    bom.register_dependency(whole, bom.components)
    outputter = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    outputter.output_to_file(str(path), allow_overwrite=True, indent=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tensorflow", choices=("cuda", "cpu"), default="cuda", help="what wm-gpu computes on")
    parser.add_argument("--tool", default="", help="docker, podman or buildah")
    parser.add_argument("--locks-only", action="store_true", help="ask no image, even if one is at hand")
    options = parser.parse_args()
    try:
        tool = "" if options.locks_only else choose(options.tool)
    except Failed:
        if options.tool:
            raise
        tool = ""  # then no image is at hand
    options.folder.mkdir(parents=True, exist_ok=True)
    laptop, path = locked(ROOT / "images/requirements.laptop.txt"), options.folder / "laptop.cdx.json"
    write(laptop, Component(name=NAME, version=revision(), type=ComponentType.APPLICATION), path)
    print(f"{path}: {len(laptop.components)} components, with which {NAME} is tested")
    for image in (Image("cpu", options.tensorflow), Image("gpu", options.tensorflow)):
        bom, name = locked(lock_of(image)), image.tagged("dev")
        more = list(measured(tool, name, image, bom)) if tool and describe(tool, name) else []
        bom.components.update([base(), *more])
        whole = Component(name=f"wm-{image.kind}", version=revision(), type=ComponentType.CONTAINER)
        path = options.folder / f"{name.replace(':dev', '')}.cdx.json"
        write(bom, whole, path)
        asked = f"{len(more)} more from the image" if more else f"{name} is not built here: without Debian's packages"
        print(f"{path}: {len(bom.components)} components; {asked}")


if __name__ == "__main__":
    main()
