from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clio_lab.demo.command import main
from clio_lab.demo.ports import find_base_port

UNMET = (
    "import sys; sys.modules['pyroute2'] = None; from clio_lab.demo.command import main; sys.exit(main([]))"
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "0"], "--nodes 0 is out of range: choose 1 to 16"),
        (["--base-port", "80"], "--base-port 80 needs the ports 80 to"),
        (["--listen", "nowhere"], "--listen 'nowhere' is not host:port"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*arguments, "--dir", str(tmp_path / "demo")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"clio-exporter demo: {message}")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "demo").exists()


def test_a_runtime_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base_port = find_base_port(4)
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", base_port + 30))
        server.listen()
        code = main(["--dir", str(tmp_path), "--base-port", str(base_port)])
    assert code == 1
    assert f"port {base_port + 30}, which the cluster needs, is in use by" in capsys.readouterr().err
    assert not (tmp_path / "state.json").exists()


def test_a_directory_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    assert main(["--dir", str(blocker / "demo"), "--base-port", str(find_base_port(4))]) == 1
    assert "give another --dir" in capsys.readouterr().err


def test_missing_packages_name_the_pip_command() -> None:
    result = subprocess.run(
        [sys.executable, "-c", UNMET], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert "package pyroute2 is missing" in result.stderr
    assert "pip install 'clio-exporter[demo]'" in result.stderr


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["--nodes", "0", "--dir", str(tmp_path)]) == 1
    assert signal.getsignal(signal.SIGTERM) is before
