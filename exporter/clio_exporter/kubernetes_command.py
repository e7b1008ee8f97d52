"""`clio-exporter kubernetes`: write all of it as a kustomization, for the nodes of a hostfile."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final

from clio_client import __version__
from clio_client.address import CLIENT_PORT_OFFSET, DEFAULT_PORT
from clio_client.config.errors import ConfigError
from clio_client.config.hostfile import parse_hostfile, read_hostfile_text
from clio_exporter.kit import grafana, kubernetes, rules
from clio_exporter.kit.command import (
    add_datasource_argument,
    add_job_argument,
    add_link_arguments,
    url,
    write,
)

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_IMAGE: Final = re.compile(r"[a-z0-9][\w./-]*(:[0-9]+/[\w./-]+)?:[\w.-]{1,128}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kubernetes`."""
    parser.description = (
        "Write a kustomization: exporter, control API, ServiceMonitors and PrometheusRules for the "
        "Prometheus operator, dashboards as ConfigMaps. See docs/kubernetes.md."
    )
    parser.add_argument(
        "--directory", type=Path, required=True, metavar="DIR", help="where to write; made if missing"
    )
    parser.add_argument(
        "--hostfile", type=Path, required=True, metavar="FILE", help="the nodes; a copy of it is written too"
    )
    parser.add_argument(
        "--namespace", type=_name, default="clio", help="where all of it goes (default: %(default)s)"
    )
    parser.add_argument(
        "--monitoring-namespace",
        type=_name,
        default="monitoring",
        metavar="NAMESPACE",
        help="where Prometheus and Grafana are; others may not ask (default: %(default)s)",
    )
    parser.add_argument(
        "--image",
        type=_image,
        default=f"clio-exporter:{__version__}",
        metavar="NAME:TAG",
        help="image of exporter and control API (default: %(default)s)",
    )
    parser.add_argument(
        "--control-api",
        type=url,
        metavar="URL",
        help="with the control API, which browsers reach at this address (default: without)",
    )
    add_datasource_argument(parser)
    add_link_arguments(parser)
    add_job_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Write the kustomization; returns the exit status."""
    try:
        text, source = read_hostfile_text(args.hostfile)
        entries = parse_hostfile(text, source)
        ports = sorted({(entry.port or DEFAULT_PORT) + CLIENT_PORT_OFFSET for entry in entries})
        files = kubernetes.render(
            kubernetes.KubernetesOptions(
                hostfile=text,
                client_ports=ports,
                image=args.image,
                namespace=args.namespace,
                monitoring=args.monitoring_namespace,
                control_api=args.control_api is not None,
                dashboards=grafana.GrafanaOptions(
                    "/", control_api=args.control_api, datasource=args.datasource
                ),
                rules=rules.Options(
                    exporter_job=args.job, grafana_url=args.grafana_url, docs_url=args.docs_url
                ),
            )
        )
    except (ConfigError, ValueError) as error:
        print(f"clio-exporter kubernetes: {error}", file=sys.stderr)
        return 1
    directory = args.directory.absolute()
    if not write("kubernetes", directory, files):
        return 1
    print(f"Look at it with: kubectl kustomize {directory}\nand apply it with: kubectl apply -k {directory}")
    if args.control_api is not None:
        print("The control API waits for a Secret: docs/kubernetes.md says how to make it.")
    return 0


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no namespace: use a-z, 0-9 and '-'")
    return text


def _image(text: str) -> str:
    if not _IMAGE.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an image like registry.example/clio-exporter:0.1.0"
        )
    return text
