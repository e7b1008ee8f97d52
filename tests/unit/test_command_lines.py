"""Completion and manual pages of both commands, as shells and man read them."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from clio_client.config.commands import SHELLS, completion_script
from clio_control_api import cli as control_api
from clio_exporter import cli as exporter
from tests.paths import ROOT
from tests.system import needs_system, require_system

PROGRAMS = {"clio-exporter": exporter, "clio-control-api": control_api}


def bash(script: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words typed."""
    typed = " ".join(map(shlex.quote, words))
    code = (
        f"source {shlex.quote(str(script))}; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; "
        f'set -- $(complete -p {words[0]}); while [ "$1" != -F ]; do shift; done; '
        f"$2 {words[0]} {shlex.quote(words[-1])} {shlex.quote(words[-2])}; "
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", code],
        cwd=script.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["clio-exporter", "--web.l"], {"--web.listen-address"}),
        (["clio-exporter", "--runtime.transport", ""], {"zmq", "binding"}),
        (["clio-exporter", "--config.file", "clu"], {"cluster.yaml"}),
        (["clio-exporter", "ru"], {"rules"}),
        (["clio-exporter", "rules", "--cluster"], {"--cluster-label"}),
        (["clio-exporter", "dashboards", "--format", ""], {"files", "configmap"}),
        (["clio-exporter", "dashboards", "--directory", "k"], {"kit"}),
        (["clio-exporter", "completion", ""], set(SHELLS)),
        (["clio-control-api", "--state"], set()),
        (["clio-control-api", "--tokens"], {"--tokens-file"}),
        (["clio-control-api", "token", "--role", ""], {"viewer", "operator"}),
        (["clio-control-api", "audit", "ver"], {"verify"}),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_bash_completes(
    words: list[str], offered: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert PROGRAMS[words[0]].main(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "cluster.yaml").touch()
    (tmp_path / "kit").mkdir()
    assert bash(script, *words) == offered


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("shell", SHELLS)
def test_shells_take_the_completion(shell: str, program: str, tmp_path: Path) -> None:
    require_system(shell)
    script = tmp_path / "completion"
    script.write_text(completion_script(PROGRAMS[program].whole_parser(), shell))
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_manual_has_every_flag_and_command(program: str) -> None:
    page = (ROOT / "contrib" / "man" / f"{program}.1").read_text().replace("\\-", "-")
    module = PROGRAMS[program]
    flags = [flag for action in module._parser()._actions for flag in action.option_strings if flag != "-h"]
    assert len(flags) > 10
    assert [flag for flag in flags if flag != "--help" and flag not in page] == []
    assert [name for name in module.COMMANDS if f"{program} {name}" not in page] == []


@needs_system("groff")
@pytest.mark.parametrize("program", PROGRAMS)
def test_man_has_nothing_to_complain_of(program: str) -> None:
    page = ROOT / "contrib" / "man" / f"{program}.1"
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", str(page)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
