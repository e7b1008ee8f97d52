"""`clio-exporter dashboards` and `clio-exporter rules`: write the kit for the names of a place."""

from __future__ import annotations

import argparse
import re
import sys
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import yaml

from clio_exporter.kit import grafana, kubernetes, prometheus, rules

_DURATION = re.compile(r"\d+(ms|s|m|h)")


def add_dashboards_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `dashboards`."""
    parser.description = (
        "Write the eight Grafana dashboards, and the files by which Grafana loads them by itself "
        "(provisioning). Or import the dashboards one by one."
    )
    _common(parser, "ConfigMaps that the sidecar of Grafana's Helm chart loads", "configmap")
    parser.add_argument(
        "--control-api",
        type=url,
        metavar="URL",
        help="address of clio-control-api as browsers reach it, for the search box and the links to restart "
        "and shutdown (default: none; the pages have a box for it)",
    )
    parser.add_argument(
        "--control-api-from-grafana",
        type=url,
        metavar="URL",
        help="the same as Grafana's server reaches it, for the search (default: as --control-api)",
    )
    add_datasource_argument(parser)
    parser.add_argument(
        "--prometheus-url",
        type=url,
        metavar="URL",
        help="also provision a data source for this Prometheus (default: Grafana has one)",
    )
    parser.add_argument(
        "--scrape-interval",
        type=_duration,
        default="15s",
        metavar="DURATION",
        help="of that data source (default: %(default)s)",
    )
    parser.add_argument(
        "--path",
        metavar="DIR",
        help="where Grafana finds the directory, if elsewhere (a container's mount)",
    )


def add_rules_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `rules`."""
    parser.description = (
        "Write Prometheus's recording and alerting rules, and configurations of Prometheus and Alertmanager "
        "to take sections from; print the sections that a prometheus.yml needs."
    )
    defaults = prometheus.PrometheusOptions()
    _common(parser, "a PrometheusRule for the Prometheus operator", "prometheusrule")
    names = rules.Options()
    add_job_argument(parser)
    parser.add_argument(
        "--control-api-job",
        default=names.control_job,
        metavar="NAME",
        help="its job that scrapes the control API (default: %(default)s)",
    )
    add_link_arguments(parser)
    parser.add_argument(
        "--cluster-label",
        action="append",
        default=[],
        metavar="LABEL",
        help="label that tells clusters of one name apart, beside `cluster`; may be repeated",
    )
    parser.add_argument(
        "--exporter", default=defaults.exporter, metavar="HOST:PORT", help=_target("exporter")
    )
    parser.add_argument(
        "--control-api", default=defaults.control_api, metavar="HOST:PORT", help=_target("control API")
    )
    parser.add_argument(
        "--alertmanager", default=defaults.alertmanager, metavar="HOST:PORT", help=_target("Alertmanager")
    )
    parser.add_argument(
        "--prometheus", default=defaults.own_address, metavar="HOST:PORT", help=_target("Prometheus itself")
    )
    parser.add_argument(
        "--scrape-interval",
        type=_duration,
        default=defaults.scrape_interval,
        metavar="DURATION",
        help="how often the exporter is scraped (default: %(default)s)",
    )
    parser.add_argument(
        "--scrape-timeout",
        type=_duration,
        metavar="DURATION",
        help="at most the interval, and above the exporter's --runtime.timeout "
        f"(default: {defaults.scrape_timeout}, or the interval if that is shorter)",
    )


def add_datasource_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that names Grafana's data source."""
    parser.add_argument(
        "--datasource",
        metavar="NAME",
        help="Grafana's name of the Prometheus data source (default: chosen on the page)",
    )


def add_job_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the exporter's scrape job."""
    parser.add_argument(
        "--job",
        default=rules.Options().exporter_job,
        metavar="NAME",
        help="Prometheus's job that scrapes the exporter (default: %(default)s)",
    )


def add_link_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where alerts' links lead."""
    parser.add_argument(
        "--grafana-url",
        type=url,
        default=prometheus.GRAFANA_URL,
        metavar="URL",
        help="where alerts' links to dashboards lead (default: %(default)s)",
    )
    parser.add_argument(
        "--docs-url",
        type=url,
        default=prometheus.DOCS_URL,
        metavar="URL",
        help="where alerts' links to runbooks lead: the exporter serves them (default: %(default)s)",
    )


def run_dashboards(args: argparse.Namespace) -> int:
    """Write the dashboards; returns the exit status."""
    directory = args.directory.absolute()
    options = grafana.GrafanaOptions(
        directory=args.path or str(directory),
        control_api=args.control_api,
        search_url=args.control_api_from_grafana,
        datasource=args.datasource,
        prometheus_url=args.prometheus_url,
        scrape_interval=args.scrape_interval,
    )
    if args.format == "configmap":
        files = kubernetes.config_maps(grafana.dashboards(options), args.namespace)
    else:
        files = grafana.render(options)
    if not write("dashboards", directory, files):
        return 1
    if args.format == "files":
        print(
            "Import dashboards/*.json by hand, or let Grafana load them, with this in grafana.ini:\n"
            f"    [paths]\n    provisioning = {options.directory}/provisioning"
        )
    return 0


def run_rules(args: argparse.Namespace) -> int:
    """Write the rules; returns the exit status."""
    directory = args.directory.absolute()
    try:
        options = prometheus.PrometheusOptions(
            rules=rules.Options(
                exporter_job=args.job,
                control_job=args.control_api_job,
                grafana_url=args.grafana_url,
                docs_url=args.docs_url,
                cluster_labels=tuple(dict.fromkeys(("cluster", *args.cluster_label))),
            ),
            exporter=args.exporter,
            control_api=args.control_api or None,
            alertmanager=args.alertmanager or None,
            own_address=args.prometheus or None,
            scrape_interval=args.scrape_interval,
            scrape_timeout=args.scrape_timeout
            or min(args.scrape_interval, prometheus.SCRAPE_TIMEOUT, key=_seconds),
        )
        if args.format == "prometheusrule":
            files = kubernetes.prometheus_rules(rules.render(options.rules, prometheus.MADE), args.namespace)
        else:
            files = prometheus.render(options)
    except ValueError as error:
        print(f"clio-exporter rules: {error}", file=sys.stderr)
        return 1
    if not write("rules", directory, files):
        return 1
    if args.format == "files":
        wanted = prometheus.sections(options, str(directory / "rules"))
        print("A Prometheus that runs already needs this in its prometheus.yml:\n")
        print(yaml.safe_dump(wanted, sort_keys=False), end="")
    return 0


def _common(parser: argparse.ArgumentParser, meaning: str, kubernetes_format: str) -> None:
    parser.add_argument(
        "--directory", type=Path, required=True, metavar="DIR", help="where to write; made if missing"
    )
    parser.add_argument(
        "--format",
        choices=["files", kubernetes_format],
        default="files",
        help=f"{kubernetes_format}: {meaning} (default: %(default)s)",
    )
    parser.add_argument(
        "--namespace", metavar="NAME", help=f"of the objects, with --format {kubernetes_format}"
    )


def _target(what: str) -> str:
    return f'address of the {what} as Prometheus reaches it, "" for none (default: %(default)s)'


def write(command: str, directory: Path, files: Mapping[str, str]) -> bool:
    """Write the files and say which; False, after a message, when that cannot be done."""
    try:
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        print(
            f"clio-exporter {command}: cannot write {error.filename}: {error.strerror}: "
            "give another --directory",
            file=sys.stderr,
        )
        return False
    print(f"{len(files)} files written to {directory}")
    return True


def url(text: str) -> str:
    """An address for argparse, without a slash at its end."""
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s{}\"'$]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address like http://host:port")
    return text.rstrip("/")


def _duration(text: str) -> str:
    if not _DURATION.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration like 15s")
    return text


def _seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(\w+)", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]
