from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clio_lab.demo.errors import DemoError
from clio_lab.demo.install import RuntimeInstall, parse_version


@pytest.mark.parametrize(
    ("text", "release"),
    [("2.3.2", (2, 3, 2)), ("1.0", (1, 0)), ("2.3.0rc1", (2, 3, 0)), ("2.3.1.dev4+x", (2, 3, 1))],
)
def test_parse_version(text: str, release: tuple[int, ...]) -> None:
    assert parse_version(text) == release


def test_parse_version_rejects_what_is_none() -> None:
    with pytest.raises(ValueError, match="'new'"):
        parse_version("new")


@pytest.mark.parametrize(
    ("version", "command", "multi_node"),
    [
        ("1.0.3", ("chimaera", "runtime", "start"), False),
        ("1.9.0", ("chimaera", "runtime", "start"), False),
        ("1.9.7", ("clio_run", "runtime", "start"), False),
        ("2.1.0", ("clio_run", "runtime", "start"), False),
        ("2.2.1", ("clio_run", "start"), False),
        ("2.3.2", ("clio_run", "start"), True),
    ],
)
def test_start_command_follows_the_version(version: str, command: tuple[str, ...], multi_node: bool) -> None:
    install = RuntimeInstall(version, Path("/v/bin"))
    assert install.start_command == (f"/v/bin/{command[0]}", *command[1:])
    assert install.multi_node is multi_node


def make_venv(path: Path, version: str, program: str | None) -> Path:
    packages = path / "lib" / "python3.11" / "site-packages"
    (packages / f"iowarp_core-{version}.dist-info").mkdir(parents=True)
    (path / "bin").mkdir()
    if program is not None:
        (path / "bin" / program).touch()
    return path


def test_from_venv_reads_version_and_place(tmp_path: Path) -> None:
    install = RuntimeInstall.from_venv(make_venv(tmp_path, "1.9.0", "chimaera"))
    assert install == RuntimeInstall("1.9.0", tmp_path / "bin")


def test_from_venv_without_the_wheel_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="pip install iowarp-core"):
        RuntimeInstall.from_venv(tmp_path)


def test_missing_program_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"clio_run is missing: reinstall .*iowarp-core==2\.3\.2"):
        RuntimeInstall.from_venv(make_venv(tmp_path, "2.3.2", None))


def test_no_wheel_in_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clio_lab.demo.install.DISTRIBUTION", "no-such-distribution")
    with pytest.raises(DemoError) as caught:
        RuntimeInstall.current()
    assert f"{sys.executable} -m pip install 'clio-exporter[demo]'" in str(caught.value)
    assert "\n" not in str(caught.value)
