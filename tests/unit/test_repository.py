"""The repository as a whole: what must not be in it, and that its documents, versions and commands agree."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import clio_client
from tests.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


NOT_OURS = {".git", ".venv", ".cache", ".demo", "build", "dist", "__pycache__"}


@cache
def committed_files() -> tuple[Path, ...]:
    """Paths, relative to the root, of what git tracks; without git, of all but build results."""
    listed = (
        subprocess.run(
            ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if (ROOT / ".git").exists()
        else None
    )
    if listed is not None and listed.returncode == 0:
        names = [Path(name) for name in listed.stdout.split("\0") if name]
        return tuple(name for name in names if (ROOT / name).is_file())
    names = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    return tuple(
        name
        for name in names
        if not any(p in NOT_OURS or p.endswith("_cache") or p.endswith(".egg-info") for p in name.parts)
    )


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def project() -> dict[str, object]:
    return tomllib.loads(text("pyproject.toml"))


def normal(name: str) -> str:
    """Normalize a distribution name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct_dependencies() -> dict[str, str]:
    """Normalized name -> requirement, of all dependencies and extras of pyproject.toml."""
    table = project()["project"]
    assert isinstance(table, dict)
    own = normal(table["name"])
    lists = [table["dependencies"], *table["optional-dependencies"].values()]
    found = {}
    for requirement in (item for entries in lists for item in entries):
        name = normal(re.match(r"[A-Za-z0-9._-]+", requirement).group())  # type: ignore[union-attr]
        if name != own:
            found[name] = requirement
    return found


def pins() -> dict[str, str]:
    """Normalized name -> version of constraints.txt; fails on any line of another form."""
    found = {}
    for line in text("constraints.txt").splitlines():
        if line.strip() and not line.startswith("#"):
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.+!]*)", line)
            assert match, f"constraints.txt: not a plain name==version line: {line!r}"
            assert normal(match[1]) not in found, f"constraints.txt: {match[1]} twice"
            found[normal(match[1])] = match[2]
    return found


# --- What must not be committed ----------------------------------------------
# Written in pieces, so that this file does not contain what it looks for.

FORBIDDEN = {
    "package registry": "|".join(
        [
            "pypi" + r"\.org", "python" + r"hosted\.org", "npm" + r"js\.(?:org|com)", "yarn" + r"pkg\.com",
            "crates" + r"\.io", "proxy\\.golang" + r"\.org", "rubygems" + r"\.org", "deb\\.debian" + r"\.org",
            "archive\\.ubuntu" + r"\.com", "pkg" + r"\.dev/", "arti" + "factory",
            "--(?:extra-)?index" + "-url", "--find" + "-links", "--trusted" + "-host",
        ]
    ),
    "path of a build machine": r"(?<![\w.}-])/(?:wo" + "rk|tmp/" + "lab|ro" + "ot)/",
}  # fmt: skip


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_committed_file_contains(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what].encode())
    found = [
        f"{name}: {match.group().decode()}"
        for name in committed_files()
        for match in pattern.finditer((ROOT / name).read_bytes())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "sample"),
    [
        ("package registry", "https://py" + "pi.org/simple"),
        ("package registry", "pip install --index" + "-url x"),
        ("path of a build machine", 'open("/wo' + 'rk/main/x")'),
        ("path of a build machine", "cp /ro" + "ot/.ssh/id"),
    ],
)
def test_forbidden_patterns_find_what_they_are_for(what: str, sample: str) -> None:
    assert re.search(FORBIDDEN[what], sample)


@pytest.mark.parametrize("sample", ["docs/wo" + "rk/x", "https://example.org/pypi", "~/.clio/ro" + "ot/x"])
def test_forbidden_patterns_leave_ordinary_text_alone(sample: str) -> None:
    assert not any(re.search(pattern, sample) for pattern in FORBIDDEN.values())


def test_no_lock_file_is_committed() -> None:
    locks = re.compile(r"(.*\.lock|.*-lock\.(json|ya?ml)|npm-shrinkwrap\.json|go\.sum)")
    assert [str(name) for name in committed_files() if locks.fullmatch(name.name)] == []


def test_pre_commit_uses_local_hooks_only() -> None:
    assert re.findall(r"repo:\s*(\S+)", text(".pre-commit-config.yaml")) == ["local"]


# --- Versions ----------------------------------------------------------------


def test_every_direct_dependency_is_pinned() -> None:
    assert sorted(direct_dependencies().keys() - pins().keys()) == []


def test_pins_satisfy_pyproject() -> None:
    for name, requirement in direct_dependencies().items():
        assert Requirement(requirement).specifier.contains(pins()[name], prereleases=True), requirement


def test_versions_agree() -> None:
    assert importlib.metadata.version("clio-exporter") == clio_client.__version__
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", text("CHANGELOG.md"), re.MULTILINE)
    assert releases in ([], sorted(releases, key=lambda v: [int(p) for p in v.split(".")], reverse=True))
    if releases:
        assert releases[0] == clio_client.__version__
    else:
        assert "## [Unreleased]" in text("CHANGELOG.md")


def test_documents_name_the_runtime_version_that_is_pinned() -> None:
    assert pins()["iowarp-core"] in text("docs/compatibility.md")
    assert f"iowarp-core {pins()['iowarp-core']}" in text("README.md")


def test_oldest_python_agrees() -> None:
    table = project()["project"]
    assert isinstance(table, dict)
    oldest = table["requires-python"].removeprefix(">=")
    assert f"Python {oldest}" in text("README.md")
    assert f"Python {oldest}" in text("docs/compatibility.md")
    assert "(3, {})".format(oldest.split(".")[1]) in text("scripts/bootstrap.sh")


# --- Commands ----------------------------------------------------------------


@cache
def make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z][a-z-]*):", text("Makefile"), re.MULTILINE))


@cache
def documents() -> tuple[Path, ...]:
    return tuple(
        n
        for n in committed_files()
        if n.suffix == ".md" and n.parts[0] in {"README.md", "CHANGELOG.md", "docs"}
    )


def test_documented_make_commands_exist() -> None:
    for name in documents():
        for target in re.findall(r"(?:^\s*|`)make ([a-z][a-z-]*)", text(str(name)), re.MULTILINE):
            assert target in make_targets(), f"{name}: make {target}"


def test_the_readme_gives_the_commands_that_ci_runs() -> None:
    for command in ("make demo", "make test", "make lint"):
        assert command in text("README.md")
    ci = text(".ci/run")
    assert "within_limit make lint\n" in ci
    assert "within_limit make test 2>&1" in ci


def test_every_make_target_is_phony_and_documented() -> None:
    phony = re.search(r"^\.PHONY:(.*)$", text("Makefile"), re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == make_targets()
    listed = subprocess.run(
        ["make", "-C", str(ROOT), "help"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert set(re.findall(r"^  make (\S+) +\S", listed, re.MULTILINE)) == make_targets()


@pytest.mark.parametrize("name", [".ci/run", "scripts/bootstrap.sh", "scripts/release.sh", "scripts/test.sh"])
def test_scripts_are_executable_and_parse(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111
    shell = text(name).splitlines()[0].removeprefix("#!")
    subprocess.run([shell, "-n", str(ROOT / name)], timeout=30, check=True)


def test_bootstrap_explains_itself_and_refuses_unknown_commands() -> None:
    script = str(ROOT / "scripts" / "bootstrap.sh")
    done = subprocess.run(["sh", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "packages GROUP" in done.stderr
    unknown = subprocess.run(
        ["sh", script, "packages", "x"], capture_output=True, text=True, timeout=30, check=False
    )
    assert unknown.returncode == 1
    assert "groups: setup, test, demo" in unknown.stderr


def test_package_list_is_well_formed() -> None:
    rows = [
        [part.strip() for part in line.split("|")]
        for line in text("scripts/system-packages.txt").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    assert {len(row) for row in rows} == {4}
    assert all(all(row) for row in rows)
    assert {group for row in rows for group in row[2].split()} == {"setup", "test", "demo"}


# --- Documents ---------------------------------------------------------------


def anchors(markdown: str) -> set[str]:
    """Anchors that GitHub gives to the headings of a document."""
    outside_code = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.*?) *$", outside_code, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)) for heading in headings)
    return {heading.lower().replace(" ", "-") for heading in plain}


def test_links_between_documents_resolve() -> None:
    broken = []
    for name in documents():
        for link in re.findall(r"\]\(([^)\s]+)\)", text(str(name))):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, fragment = link.partition("#")
            target = (ROOT / name).parent / path if path else ROOT / name
            if not target.exists() or (
                fragment and fragment not in anchors(target.read_text(encoding="utf-8"))
            ):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_pictures_are_there_at_every_width() -> None:
    """Narrow ones for phones are no wider than a phone shows without making letters tiny."""
    for name in documents():
        content = text(str(name))
        pictures = re.findall(r'(?:src|srcset)="([^"]+)"|!\[[^]]*\]\(([^)\s]+)\)', content)
        missing = [
            each
            for pair in pictures
            for each in pair
            if each and not (ROOT / name).parent.joinpath(each).exists()
        ]
        assert missing == [], name
        for narrow in re.findall(r'media="\(max-width: 600px\)" srcset="([^"]+)"', content):
            header = (ROOT / name).parent.joinpath(narrow).read_bytes()[:24]
            assert int.from_bytes(header[16:20], "big") <= 720, narrow


def test_documents_named_anywhere_exist() -> None:
    """Also where a document is named without a link: in code, messages, the Makefile."""
    missing = [
        f"{name}: {document}"
        for name in committed_files()
        if name.suffix in {".md", ".py", ".toml", ".sh", ".yaml", ".yml"} or name.name in {"Makefile", "run"}
        for document in re.findall(r"(?<![\w/])docs/[\w-]+\.md", text(str(name)))
        if not (ROOT / document).exists()
    ]
    assert missing == []


def test_every_document_is_reachable_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", text("README.md")))
    assert {str(name) for name in documents() if name.parts[0] == "docs"} - linked == set()


def test_documents_do_not_keep_placeholders_or_emojis() -> None:
    for name in documents():
        content = text(str(name))
        assert not re.search(r"TODO|TBD|FIXME|<!-- (?:excerpt|measured|figures)", content), name
        assert not re.search("[\U0001f300-\U0001faff\u2600-\u27bf]", content), name
