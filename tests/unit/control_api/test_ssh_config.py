"""~/.ssh/config, held against `ssh -G` where that says what counts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from clio_control_api.settings import SshSettings
from clio_control_api.ssh_config import Destination, destination
from clio_control_api.ssh_errors import SshConfigError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return tmp_path / ".ssh" / "config"


def found(config: Path, text: str, host: str = "node1", **settings: object) -> Destination:
    config.write_text(text)
    config.chmod(0o600)
    return destination(host, SshSettings(config_file=config, **settings))  # type: ignore[arg-type]


TEXTS = {
    "plain": "Host node1\n  HostName 10.0.0.1\n\tPort 2222\nHost *\nPort 1\nUser other\n",
    "equals": 'HostName=10.0.0.1\nPort = "2222"\nUser = anna # who\n',
    "patterns": "Host n* !node1\nPort 1\nHost node? *.x\nPort 2\nHost NODE1\nPort 3\n",
    "tokens": "HostName %h.cluster\nIdentityFile ~/.ssh/%h-%r\nIdentityFile %d/x\nUser anna\n",
    "match": "Match originalhost node1 user bob\nPort 1\nMatch host node1\nPort 2\nMatch all\nPort 3\n",
    "negation": "Match !host node2\nPort 4\n",
    "match by what was set": "Host node1\nHostName far\nMatch host far\nPort 5\nMatch host node1\nPort 6\n",
    "list": "Match originalhost a,node*,!node2\nPort 7\n",
    "final": "Match final\nPort 8\nHost *\nUser u\n",
    "include": "Include more\nHost node1\nInclude inner\nPort 9\n",
    "inactive include": "Host other\nInclude active\nHost *\nPort 10\n",
    "alias": "HostKeyAlias gate\nIdentitiesOnly yes\n",
    "jump first": "ProxyJump gate\nProxyCommand nc %h %p\n",
    "command first": "ProxyCommand nc %h %p\nProxyJump gate\n",
    "unknown": "CanonicalizeHostname no\nForwardAgent yes\nPort 11\n",
}


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here to compare with")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_it_says_what_ssh_says(config: Path, text: str) -> None:
    for name, body in (
        ("more", "Host node2\nPort 1\n"),
        ("inner", "User inner\nHost node2\nPort 2\nHost node1\nHostName in.cluster\n"),
        ("active", "Host *\nPort 3\nUser active\n"),
    ):
        (config.parent / name).write_text(body)
        (config.parent / name).chmod(0o600)
    ours = found(config, text)
    # ssh reads the file of the account's home directory, whatever HOME says: so it is named, with full paths.
    named = config.with_name("named")
    named.write_text(text.replace("Include ", f"Include {config.parent}/"))
    done = subprocess.run(
        ["ssh", "-G", "-F", str(named), "node1"], capture_output=True, text=True, timeout=20, check=True
    )
    theirs: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        theirs.setdefault(keyword, []).append(value)
    assert ours.host == theirs["hostname"][0]
    assert ours.port == int(theirs["port"][0])
    if "user" in text.lower():
        assert ours.user == theirs["user"][0]
    assert ours.identities_only == (theirs.get("identitiesonly") == ["yes"])
    assert list(ours.jumps) == theirs.get("proxyjump", [])
    if ours.command is None:
        assert "proxycommand" not in theirs
    else:
        assert theirs["proxycommand"] == ["nc %h %p"]
    assert ours.alias == theirs.get("hostkeyalias", [None])[0]


def test_tokens_and_where_they_stand(config: Path, tmp_path: Path) -> None:
    text = (
        "HostName %h.cluster\nUser anna\nPort 23\nIdentityFile ~/%h-%r\nIdentityFile %d/%%x\n"
        "ProxyCommand nc %n %h %p %r %%\n"
    )
    ours = found(config, text)
    assert ours.identities == (tmp_path / "node1.cluster-anna", tmp_path / "%x")
    assert ours.command == "nc node1 node1.cluster 23 anna %"
    assert found(config, text, user="bob", port=24, key_file=tmp_path / "k").identities == (tmp_path / "k",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Port 1\nMatch exec true\n", "line 2 has Match exec"),
        ('Match host x  exec "touch %h"\n', "line 1 has Match exec"),
        ("match=EXEC true\n", "line 1 has Match exec"),
        ("Match !exec=true\n", "line 1 has Match exec"),
        ("Match localnetwork 10.0.0.0/8\n", "line 1 has Match localnetwork, which is not supported"),
        ("Match host\n", "line 1: Match host has no value"),
        ('Port "22\n', "line 1 has a quote without its end"),
        ("Port\n", "line 1 has no value"),
        ("Port 0\n", "is no Port"),
        ("Port ssh\n", "is no Port"),
        ("User a;b\n", "is no User"),
        ("HostName -oProxyCommand=x\n", "is no HostName"),
        ("HostName $(touch bad)\n", "is no HostName"),
        ("IdentityFile %q\n", "token %q"),
        ("ProxyCommand nc %\n", "token %,"),
        ("Include config\n", "include each other"),
        ("Include a\0b\n", "line 1 has a null character"),
        ("Port 1\nIdentityFile ~\0\n", "line 2 has a null character"),
    ],
)
def test_what_cannot_be_used_is_named(config: Path, text: str, words: str) -> None:
    with pytest.raises(SshConfigError, match=re.escape(words)) as error:
        found(config, text)
    assert str(config) in str(error.value)


@pytest.mark.parametrize("host", ["x$(touch bad)", "`id`", "a b", "-oX", "", "a;b", "a\nb", "a'b", "a" * 300])
def test_a_name_that_is_none_reaches_nothing(config: Path, host: str) -> None:
    with pytest.raises(SshConfigError, match="is no host name"):
        found(config, "Host *\nProxyCommand sh -c 'nc %h %p'\n", host)


def test_the_home_of_a_user_who_is_not_there_stays_unexpanded(config: Path) -> None:
    ours = found(config, "IdentityFile ~no-such-user/id\nInclude ~no-such-user/config\nPort 3\n")
    assert ours.identities == (Path("~no-such-user/id"),)
    assert ours.port == 3
