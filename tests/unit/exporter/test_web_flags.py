from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from clio_client.config import table
from clio_client.config.errors import ConfigError
from clio_exporter.flags import LOG, add_serve_arguments, web_options
from clio_web.options import WebOptions


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="clio-exporter")
    add_serve_arguments(parser)
    return parser.parse_args(words)


def test_defaults_do_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_LISTEN_ADDRESS", ":1")
    args = parse()
    assert web_options(args) == WebOptions()
    assert table.resolved(LOG, vars(args)) == {"level": "info", "log_format": "logfmt"}


def test_everything_given() -> None:
    args = parse(
        *("--web.listen-address", ":1", "--web.listen-address=[::1]:2", "--web.telemetry-path=/m"),
        *(
            "--web.config.file=w.yml",
            "--web.max-requests=0",
            "--web.scrape-timeout=1m",
            "--timeout-offset=500ms",
        ),
        *("--log.level=warn", "--log.format=json"),
    )
    assert web_options(args) == WebOptions(
        listen_addresses=(":1", "[::1]:2"),
        telemetry_path="/m",
        config_file=Path("w.yml"),
        max_requests=0,
        timeout_offset=0.5,
        scrape_timeout=60.0,
    )
    assert table.resolved(LOG, vars(args)) == {"level": "warn", "log_format": "json"}


@pytest.mark.parametrize(
    "word",
    [
        "--web.max-requests=-1",
        "--web.max-requests=many",
        "--web.scrape-timeout=0",
        "--web.scrape-timeout=nan",
        "--timeout-offset=-1",
        "--timeout-offset=1d",
        "--log.level=loud",
        "--log.format=xml",
    ],
)
def test_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, ConfigError)) as caught:
        web_options(parse(word))
    assert word.split("=")[0] in capsys.readouterr().err + str(caught.value)
