"""Builds, checks and pushes the images with docker, podman or buildah: the first of them that works.

    python images/build.py build                                `make build-images`
    python images/build.py push --registry HOST:PORT/PATH       `make push-images REGISTRY=HOST:PORT/PATH`
    python images/build.py pin                                  `make pin-base`: the base image by digest, in base.txt

An image is tagged by git revision and as `dev`; wm-gpu without CUDA (`--tensorflow cpu`) has `-cpu` behind its tags.
A push writes `images.toml`, which names by digest what was pushed: `wm submit --config images.toml`.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASE = ROOT / "images/base.txt"
PLATFORM = "linux/amd64"  # what `kubernetes.io/arch` of every Job asks for
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
TOOLS = ("docker", "podman", "buildah")
CHROOT = ("--isolation", "chroot")  # needs no rights, and works inside a container
TIMESTAMP = ("--timestamp", "0")  # the same files make the same layer, whenever
AS_IN_A_POD = ("--read-only", "--tmpfs", "/tmp", "--network", "none", "--cap-drop", "ALL")
SMOKE = ("python", "/opt/wm/smoke.py")


@dataclass(frozen=True)
class Options:
    """Base, platform and package index of a build. An empty `index` is pip's own; `plain_http`: no registry has TLS."""

    base: str
    platform: str = PLATFORM
    index: str = ""
    plain_http: bool = False


@dataclass(frozen=True)
class Image:
    """`kind` is cpu (drives) or gpu (trains); `tensorflow` is the build for training: cuda or cpu."""

    kind: str
    tensorflow: str

    def tagged(self, tag: str) -> str:
        return f"wm-{self.kind}:{tag}" + ("-cpu" if self.kind == "gpu" and self.tensorflow == "cpu" else "")


class Failed(SystemExit):
    """An error, and the next command."""

    def __init__(self, message: str, next: str) -> None:
        super().__init__(f"images: {message}\nnext: {next}")


def do(*command: str, next: str = "make build-images") -> None:
    """Run a command and show what it says."""
    if code := subprocess.run(command, cwd=ROOT).returncode:
        raise Failed(f"`{' '.join(command)}` failed ({code}); it says why above", next)


def ask(*command: str) -> str:
    """Return the output of a command; empty if it fails."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def choose(wanted: str) -> str:
    """The first tool that works, or the wanted one if that does."""
    tools = (wanted,) if wanted else TOOLS
    for tool in tools:
        if shutil.which(tool) and subprocess.run((tool, "info"), capture_output=True).returncode == 0:
            return tool
    raise Failed(f"of {', '.join(tools)} none works: not installed, or `info` fails", f"{tools[0]} info")


def revision() -> str:
    return ask("git", "describe", "--always", "--dirty", "--abbrev=12") or "unknown"


def build(tool: str, image: Image, options: Options) -> None:
    names = image.tagged(revision()), image.tagged("dev")
    arguments = {"BASE": options.base, "REVISION": revision(), "CREATED": ask("git", "show", "-s", "--format=%cI")}
    if image.kind == "gpu":
        arguments["TENSORFLOW"] = image.tensorflow
    command = [*builder(tool), "--platform", options.platform, *insecure(tool, options.plain_http)]
    command += TIMESTAMP if tool != "docker" else ()
    command += [word for name in names for word in ("-t", name)]
    command += [word for argument in arguments.items() for word in ("--build-arg", "=".join(argument))]
    # By name alone: the tool takes the value from the environment, and no password stands in a list of processes.
    if options.index:
        os.environ["PIP_INDEX_URL"] = options.index
    inherited = [*(name for name in PROXIES if os.environ.get(name)), *(["PIP_INDEX_URL"] if options.index else ())]
    command += [word for name in inherited for word in ("--build-arg", name)]
    do(*command, "-f", f"Dockerfile.{image.kind}", ".")
    check(tool, names[0])
    print(f"{names[0]}  {describe(tool, names[0])}", flush=True)


def insecure(tool: str, plain_http: bool) -> tuple[str, ...]:
    """Words for a registry without TLS; docker's daemon knows by its own settings which these are."""
    return ("--tls-verify=false",) if plain_http and tool != "docker" else ()


def builder(tool: str) -> list[str]:
    """The words that begin a build. A buildx builder in a container keeps what it built unless told to `--load` it."""
    if tool == "docker" and ask("docker", "buildx", "version"):
        return ["docker", "buildx", "build", "--load"]
    return [tool, "build", *(["--layers", *CHROOT] if tool == "buildah" else ())]


def check(tool: str, name: str) -> None:
    """The smoke test, as the image's own user."""
    with inside(tool, name) as command:
        do(*command, *SMOKE)


@contextmanager
def inside(tool: str, name: str) -> Iterator[list[str]]:
    """The words before a command that is to run in the image."""
    if tool != "buildah":
        yield [tool, "run", "--rm", *AS_IN_A_POD, "--entrypoint", "/usr/bin/env", name]
        return
    container = ask("buildah", "from", name)
    try:
        yield ["buildah", "run", *CHROOT, container]
    finally:
        ask("buildah", "rm", container)


def describe(tool: str, name: str) -> str:
    """The image's digest and its size unpacked; empty if it is not there."""
    if tool != "buildah":
        return ask(tool, "image", "inspect", "--format", "{{.Id}}  {{.Size}} bytes", name)
    digest = ask("buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", name)
    sizes = ask("buildah", "images", "--format", "{{.Size}}", name).splitlines()  # one for each of its names
    return digest and f"sha256:{digest}  {' '.join(sizes[:1])}"


def pin(tool: str, reference: str, plain_http: bool) -> str:
    """Pull an image by its tag and name it by the digest that its registry knows it by."""
    repository, tag = reference.partition("@")[0], ""
    if ":" in repository.rpartition("/")[2]:
        repository, _, tag = repository.rpartition(":")
    tagged = f"{repository}:{tag}" if tag else repository
    do(tool, "pull", *insecure(tool, plain_http), tagged, next="make pin-base BASE=HOST/python:3.11-slim-bookworm")
    if tool == "buildah":
        return f"{tagged}@{ask('buildah', 'inspect', '--type', 'image', '--format', '{{.FromImageDigest}}', tagged)}"
    found = ask(tool, "image", "inspect", "--format", '{{join .RepoDigests " "}}', tagged).split()
    digests = [each.partition("@")[2] for each in found if repository.endswith(each.partition("@")[0])]
    if not digests:
        raise Failed(f"{tagged} was made here: no registry knows a digest of it", "make build-images")
    return f"{tagged}@{digests[0]}"


def push(tool: str, image: Image, registry: str, plain_http: bool) -> str:
    """Push the image of this revision; its reference by digest."""
    name = image.tagged(revision())
    if not describe(tool, name):
        raise Failed(f"{name} is not built", f"make build-images TENSORFLOW={image.tensorflow}")
    target = f"{registry.rstrip('/')}/{name}"
    repository = target.rpartition(":")[0]
    do(tool, "tag", name, target)
    again = f"make push-images REGISTRY={registry}  # PLAIN_HTTP=1 if it has no TLS"
    if tool == "docker":  # its daemon's settings say which registries have no TLS
        do("docker", "push", target, next=again)
        pushed = ask("docker", "image", "inspect", "--format", '{{join .RepoDigests " "}}', target).split()
        return next(reference for reference in pushed if reference.startswith(f"{repository}@"))
    with tempfile.NamedTemporaryFile("r") as digest:
        tls = f"--tls-verify={'false' if plain_http else 'true'}"
        do(tool, "push", tls, "--digestfile", digest.name, target, next=again)
        return f"{repository}@{digest.read().strip()}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of builds."""
    parser.add_argument("--images", default="cpu gpu", help="which ones (default: cpu gpu)")
    parser.add_argument("--tensorflow", choices=("cuda", "cpu"), default="cuda", help="what wm-gpu computes on")
    parser.add_argument("--tool", default="", help=f"one of {', '.join(TOOLS)} (default: the first that works)")
    parser.add_argument("--base", default="", help="the base image (default: what images/base.txt names)")
    parser.add_argument("--platform", default=PLATFORM, help=f"what to build for (default: {PLATFORM})")
    parser.add_argument("--index", default="", help="a package index instead of pip's own, as PIP_INDEX_URL")
    parser.add_argument("--plain-http", action="store_true", help="the registry has no TLS")


def chosen(options: argparse.Namespace) -> list[Image]:
    return [Image(kind, options.tensorflow) for kind in options.images.split()]


def build_all(tool: str, options: argparse.Namespace) -> None:
    """Build the chosen images."""
    base = options.base or BASE.read_text().strip()
    for image in chosen(options):
        build(tool, image, Options(base, options.platform, options.index, options.plain_http))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("build", "push", "pin"))
    add_options(parser)
    parser.add_argument("--registry", default="", help="HOST[:PORT]/PATH to push to")
    options = parser.parse_args()
    tool, base = choose(options.tool), options.base or BASE.read_text().strip()
    if options.action == "pin":
        BASE.write_text(f"{pin(tool, base, options.plain_http)}\n")
        print(BASE.read_text(), end="")
        return
    if options.action == "build":
        build_all(tool, options)
        return
    if not options.registry:
        raise Failed("a push needs a registry", "make push-images REGISTRY=HOST:PORT/PATH")
    references = [(image.kind, push(tool, image, options.registry, options.plain_http)) for image in chosen(options)]
    lines = ["[kubernetes]", *(f'image_{kind} = "{reference}"' for kind, reference in references), ""]
    Path("images.toml").write_text("\n".join(lines))
    print("\n".join(lines), end="")


if __name__ == "__main__":
    main()
