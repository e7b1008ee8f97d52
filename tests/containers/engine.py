"""Docker engine, base images and image builds for the container tests.

Nothing here needs a registry: where the official images cannot be pulled, the base image is made from Debian
packages (debootstrap, from the mirror that apt is configured with) and the stand-in for Prometheus from the
packaged binary. Kept from run to run, to save minutes: images `clio-exporter-test-*` with Docker's cache
of their builds, and wheels in `.cache/wheelhouse-*`. The remaining things carry `LABEL` with the process that
made them; what a killed run left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import docker
import yaml
from docker.errors import DockerException, ImageNotFound, NotFound
from filelock import FileLock

from tests.paths import ROOT
from tests.system import find_command, missing_reason

LABEL = "org.clio-exporter.test-pid"
COMPOSE_LABEL = "com.docker.compose.project"
STAGE_LABEL = "org.clio-exporter.build-stage"
PREFIX = "clio-exporter-test"
EXPORTER_IMAGE = f"{PREFIX}-exporter:latest"
NODE_IMAGE = f"{PREFIX}-node:latest"
PACKAGES = ("python3", "python3-venv", "openssh-server", "busybox")
_PULL_SECONDS = 90.0
_LOOK_UP_SECONDS = 300.0
_DEBOOTSTRAP_SECONDS = 900.0
_BUILD_SECONDS = 600.0


class CannotBuildError(Exception):
    """The machine lacks what images are made of; the text is the reason for a skip."""


@cache
def engine() -> docker.DockerClient:
    """The engine's client, for the whole process; CannotBuildError when no engine answers."""
    if find_command("docker") is None:
        raise CannotBuildError("the docker command is not installed")
    # Not by the library, which leaves a socket open where it fails.
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CannotBuildError("the Docker engine does not answer") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CannotBuildError(f"no Docker engine answers: {reason[:200]}")
    return docker.DockerClient.from_env(timeout=120)


def run(*command: str, timeout: float, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return its output; AssertionError with the last lines when it fails."""
    done = subprocess.run(
        command, cwd=cwd, env=None if env is None else {**os.environ, **env}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-25:])
        raise AssertionError(f"{' '.join(command[:4])} ... ended with {done.returncode}:\n{tail}")
    return done.stdout


# --- Left over from runs that were killed ----------------------------------------------------------


def labels() -> dict[str, str]:
    """Labels of everything a test makes."""
    return {LABEL: str(os.getpid())}


def compose_project() -> str:
    """A name for a Compose project, which says which process made it."""
    return f"cliotest{os.getpid()}x{secrets.token_hex(3)}"


def remove_leftovers() -> None:
    """Remove containers, networks and volumes of test processes that no longer run."""
    client = engine()
    for label in (LABEL, COMPOSE_LABEL):
        filters = {"label": label}
        for container in client.containers.list(all=True, filters=filters, ignore_removed=True):
            if _is_leftover(container.labels):
                container.remove(force=True, v=True)
        for network in client.networks.list(filters=filters):
            if _is_leftover(network.attrs["Labels"]):
                network.remove()
        for volume in client.volumes.list(filters=filters):
            if _is_leftover(volume.attrs["Labels"]):
                volume.remove(force=True)


def _is_leftover(found: Mapping[str, str]) -> bool:
    """Whether the labels are those of a test, whose process is gone."""
    project = re.fullmatch(r"cliotest(\d+)x[0-9a-f]+", found.get(COMPOSE_LABEL, ""))
    pid = project[1] if project else found.get(LABEL)
    return pid is not None and not Path(f"/proc/{pid}").exists()


# --- Base image ----------------------------------------------------------------------------------


@cache
def base_image() -> str:
    """An image with Python: the official one if it can be pulled, else made here, with sshd."""
    wanted = os.environ.get("CLIO_TEST_BASE_IMAGE")
    if wanted:
        return wanted
    own = f"{PREFIX}-base:{_recipe()}"
    if _has(own):
        return own
    official = compose_document()["x-node"]["build"]["args"]["BASE_IMAGE"].partition(":-")[2].rstrip("}")
    if pull(official):
        return official
    reason = missing_reason("debootstrap")
    if reason is None and os.geteuid() != 0:
        reason = "only root can make a base image from Debian packages"
    if reason is None and find_command("apt-get") is None:
        reason = "this is no Debian or Ubuntu"
    if reason is not None:
        raise CannotBuildError(f"{reason}; and {official} cannot be pulled")
    with FileLock(Path(tempfile.gettempdir()) / f"{PREFIX}-base.lock", timeout=_DEBOOTSTRAP_SECONDS):
        if not _has(own):
            _debootstrap(own)
    return own


def _recipe() -> str:
    """Names what the base image is made of, so that another recipe is another image."""
    release = _os_release()
    text = " ".join((release.get("ID", ""), release.get("VERSION_CODENAME", ""), *PACKAGES))
    return f"{release.get('VERSION_CODENAME', 'unknown')}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _os_release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def _mirror(suite: str) -> str:
    """Where apt itself takes `suite` from."""
    listed = run(
        "apt-get",
        "indextargets",
        "--format",
        "$(RELEASE) $(REPO_URI)",
        "Created-By: Packages",
        timeout=_LOOK_UP_SECONDS,
    )
    for line in listed.splitlines():
        release, _, uri = line.partition(" ")
        if release == suite:
            return uri
    raise CannotBuildError(f"apt knows no source of {suite} to make a base image from")


def _debootstrap(tag: str) -> None:
    release = _os_release()
    suite = release["VERSION_CODENAME"]
    components = "main,universe" if release["ID"] == "ubuntu" else "main"
    program = find_command("debootstrap")
    assert program is not None
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}-", ignore_cleanup_errors=True) as directory:
        tree = Path(directory) / "root"
        try:
            run(
                program, "--variant=minbase", f"--include={','.join(PACKAGES)}", f"--components={components}",
                suite, str(tree), _mirror(suite),
                # Nobody needs this tree after a power cut: without fsync it takes a quarter of the time.
                timeout=_DEBOOTSTRAP_SECONDS, env={"DPKG_FORCE": "unsafe-io"},
            )  # fmt: skip
            for name in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
                shutil.rmtree(tree / name, ignore_errors=True)
            # Where the packages came from is this machine's affair.
            (tree / "etc/apt/sources.list").write_text("", encoding="utf-8")
            tar = subprocess.Popen(
                ["tar", "--directory", str(tree), "--one-file-system", "-c", "."], stdout=subprocess.PIPE
            )
            assert tar.stdout is not None
            with tar.stdout:
                subprocess.run(
                    ["docker", "import", "--message", "from Debian packages", "-", tag],
                    stdin=tar.stdout, stdout=subprocess.DEVNULL, timeout=_BUILD_SECONDS, check=True,
                )  # fmt: skip
            assert tar.wait(60) == 0
        finally:
            _unmount_below(tree)


def _unmount_below(tree: Path) -> None:
    """debootstrap unmounts what it has mounted, unless it was interrupted."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{tree}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], timeout=30, check=False)


def _has(tag: str) -> bool:
    try:
        engine().images.get(tag)
    except ImageNotFound:
        return False
    return True


def pull(tag: str) -> bool:
    """Whether the image is here, or can be fetched within a bound."""
    if _has(tag):
        return True
    try:
        run("docker", "pull", "--quiet", tag, timeout=_PULL_SECONDS)
    except (AssertionError, subprocess.TimeoutExpired):
        return False
    return True


# --- The project's images ------------------------------------------------------------------------


def compose_document() -> dict[str, dict]:
    """docker-compose.yml as it is written, variables not expanded."""
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


PROJECT_FILES = (
    "Dockerfile", ".dockerignore", ".env.example", "docker-compose.yml", "cluster", "pyproject.toml",
    "README.md", "LICENSE", "constraints.txt", "client", "web", "exporter", "control_api", "lab", "contrib",
    "deploy", "prometheus", "grafana",
)  # fmt: skip


@cache
def wheelhouse() -> Path:
    """Wheels of all the images install, for the base image's Python, from where pip is configured to look."""
    version = run(
        "docker", "run", "--rm", "--network=none", "--entrypoint", "python3", base_image(), "-c",
        "import sys; print('%d.%d' % sys.version_info[:2])", timeout=120,
    ).strip().splitlines()[-1]  # fmt: skip
    wanted = (ROOT / "constraints.txt").read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    directory = ROOT / ".cache" / f"wheelhouse-{version}-{hashlib.sha256(wanted).hexdigest()[:12]}"
    complete = directory / ".complete"
    directory.parent.mkdir(exist_ok=True)
    with FileLock(f"{directory}.lock", timeout=_BUILD_SECONDS):
        if not complete.exists():
            shutil.rmtree(directory, ignore_errors=True)
            run(
                sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest",
                str(directory), "--only-binary", ":all:", "--python-version", version, "--constraint",
                "constraints.txt", "setuptools>=68", ".[fast]", "iowarp-core",
                timeout=_BUILD_SECONDS, cwd=ROOT,
            )  # fmt: skip
            complete.touch()
    return directory


@cache
def project() -> Path:
    """A copy of what images and stack are made of, with a wheelhouse: a checkout without the internet."""
    directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-project-"))
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in PROJECT_FILES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=ignored)
        elif source.exists():
            shutil.copy2(source, directory / name)
    shutil.copytree(wheelhouse(), directory / "wheelhouse", ignore=shutil.ignore_patterns(".complete"))
    return directory


def _build(target: str, tag: str) -> None:
    """Build a target of the Dockerfile; layers that have not changed come from Docker's cache."""
    before = engine().images.get(tag).id if _has(tag) else None
    run(
        "docker", "build", "--target", target, "--tag", tag, "--build-arg", f"BASE_IMAGE={base_image()}", ".",
        cwd=project(), timeout=_BUILD_SECONDS,
    )  # fmt: skip
    if before not in (None, engine().images.get(tag).id):
        with contextlib.suppress(DockerException):  # a container of another run uses it
            engine().images.remove(before)


@cache
def images() -> dict[str, str]:
    """The images of exporter (and control API) and of a cluster node, by target; built side by side."""
    context = project()
    # What both begin with, so that it is made once.
    run(
        "docker", "build", "--target", "build-tools", "--build-arg", f"BASE_IMAGE={base_image()}", ".",
        cwd=context, timeout=_BUILD_SECONDS,
    )  # fmt: skip
    tags = {"exporter": EXPORTER_IMAGE, "node": NODE_IMAGE}
    with ThreadPoolExecutor(len(tags)) as pool:
        list(pool.map(_build, tags, tags.values()))
    # What BuildKit would keep in its cache, the older builder keeps as images without a name.
    for label in (STAGE_LABEL, "org.opencontainers.image.title=clio-exporter"):
        engine().images.prune({"dangling": True, "label": label, "until": "24h"})
    return tags


@cache
def packaged_image(service: str, command: str, program: str, *data: str) -> str:
    """The official image of a compose service, else a stand-in around the program of Debian's package.

    `program` is where the official image has it: its entry point. `data` are directories that Debian's
    program reads and the official one has built in.
    """
    official = str(compose_document()["services"][service]["image"]).partition(":-")[2].rstrip("}")
    if pull(official):
        return official
    binary = find_command(command)
    if binary is None:
        raise CannotBuildError(f"{official} cannot be pulled, and {missing_reason(command)}")
    tag = f"{PREFIX}-{service}:latest"
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}-") as directory:
        shutil.copy2(Path(binary).resolve(), Path(directory) / "program")
        for source in data:
            shutil.copytree(source, f"{directory}/data{source}")
        copies = "".join(f"COPY data{source} {source}\n" for source in data)
        (Path(directory) / "Dockerfile").write_text(
            f"FROM {base_image()}\n"
            f"COPY program {program}\n{copies}"
            'RUN ln -s "$(command -v busybox)" /usr/local/bin/wget'
            f" && install -d -o 65534 -g 65534 /{service} && install -d /etc/{service}\n"
            f'USER 65534\nENTRYPOINT ["{program}"]\n',
            encoding="utf-8",
        )
        run("docker", "build", "--tag", tag, ".", cwd=Path(directory), timeout=_BUILD_SECONDS)
    return tag


def discard_project() -> None:
    """Remove the copy that `project` made."""
    if project.cache_info().currsize:
        shutil.rmtree(project(), ignore_errors=True)
        project.cache_clear()


# --- Networks ------------------------------------------------------------------------------------


def free_subnets() -> Iterator[str]:
    """First three numbers of /24 networks that neither this engine nor this host has, in random order."""
    taken = [
        ipaddress.ip_network(config["Subnet"])
        for network in engine().networks.list()
        for config in (network.attrs["IPAM"]["Config"] or ())
        if "Subnet" in config
    ]
    for line in Path("/proc/net/route").read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        if address:
            taken.append(ipaddress.ip_network((address, mask.bit_count())))
    for _ in range(100):
        prefix = f"10.{secrets.randbelow(50) + 200}.{secrets.randbelow(256)}"
        subnet = ipaddress.ip_network(f"{prefix}.0/24")
        if not any(other.version == 4 and subnet.overlaps(other) for other in taken):
            yield prefix


def exists(kind: str, identity: str) -> bool:
    """Whether the engine still has a container, network or volume."""
    try:
        getattr(engine(), kind).get(identity)
    except NotFound:
        return False
    return True
