"""Alerts about exporter, configuration and control API."""

from __future__ import annotations

from typing import Final

from clio_exporter.kit.rules.model import Alert, Group

GROUPS: Final = (
    Group(
        name="clio-monitoring",
        rules=(
            Alert(
                name="ClioExporterDown",
                severity="critical",
                scope="exporter",
                wait="2m",
                dashboard="clio-exporter",
                expr="""
                (up{job="[[exporter_job]]"} == 0)
                  or
                absent(up{job="[[exporter_job]]"})
                """,
                summary="The CLIO exporter{{ with $labels.instance }} {{ . }}{{ end }} is down",
                description=(
                    "Prometheus cannot scrape it, or is not configured to: nothing is known of "
                    "the nodes it watches, and no other alert about them can fire."
                ),
                when="`up` 0 or no such target",
            ),
            Alert(
                name="ClioProbeFailing",
                severity="warning",
                scope="exporter",
                wait="5m",
                dashboard="clio-exporter",
                comment=(
                    "Where nodes are scraped one by one. A node that is down does not fail the "
                    "probe; it says clio_node_up 0."
                ),
                expr='up{job="[[nodes_job]]"} == 0',
                summary="The probe of {{ $labels.instance }} fails",
                description=(
                    "The exporter does not answer /probe for this node within the scrape timeout,"
                    " or no longer knows the node."
                ),
                when="`up` of a probe 0",
            ),
            Alert(
                name="ClioExporterScrapeSlow",
                severity="warning",
                scope="exporter",
                wait="10m",
                dashboard="clio-exporter",
                comment=(
                    "The timeout is known where Prometheus runs with --enable-feature=extra-"
                    "scrape-metrics, else it is 10 s as in prometheus.yml."
                ),
                expr="""
                scrape_duration_seconds{job=~"[[exporter_job]]|[[nodes_job]]"}
                  > [[scrape_slow]] *
                (
                  scrape_timeout_seconds{job=~"[[exporter_job]]|[[nodes_job]]"}
                    or
                  0 * scrape_duration_seconds{job=~"[[exporter_job]]|[[nodes_job]]"} + [[scrape_timeout]]
                )
                """,
                summary="Scrapes of {{ $labels.instance }} come near their deadline",
                description=(
                    "A scrape takes {{ $value | humanizeDuration }}; nodes that have not answered"
                    " at the deadline count as down."
                ),
                when="over [[scrape_slow|words]] of the scrape timeout",
            ),
            Alert(
                name="ClioCollectorFailing",
                severity="warning",
                scope="exporter",
                wait="10m",
                dashboard="clio-exporter",
                expr="clio_collector_success == 0",
                summary="Collector {{ $labels.collector }} of {{ $labels.instance }} fails",
                description=(
                    "At least one node that is up has not answered what the collector asks, or "
                    "the answer could not be read; the log of the exporter says which."
                ),
                when="`clio_collector_success` 0",
            ),
            Alert(
                name="ClioMembershipStale",
                severity="warning",
                scope="exporter",
                wait="10m",
                dashboard="clio-exporter",
                expr="clio_cluster_membership_success == 0",
                summary="The members of [[the_cluster]] are not current or not complete",
                description=(
                    "The exporter {{ $labels.instance }} goes on with the nodes it knows; its log says why."
                ),
                when="members cannot be read",
            ),
            Alert(
                name="ClioExporterReloadFailed",
                severity="warning",
                scope="exporter",
                wait="1m",
                dashboard="clio-exporter",
                expr="clio_exporter_config_last_reload_successful == 0",
                summary="The exporter {{ $labels.instance }} could not read its settings again",
                description="It goes on with the settings it had; its log names file, line and remedy.",
                when="last reload failed",
            ),
            Alert(
                name="ClioCertificateExpires",
                severity="warning",
                scope="exporter",
                wait="10m",
                dashboard="clio-exporter",
                comment="Whoever serves without TLS has no such series.",
                expr="""
                clio_exporter_web_certificate_expiry_timestamp_seconds - time() < [[certificate_expires]]
                  or
                clio_control_web_certificate_expiry_timestamp_seconds - time() < [[certificate_expires]]
                """,
                summary="The certificate of {{ $labels.job }} {{ $labels.instance }} is about to expire",
                description=(
                    "It ends in {{ $value | humanizeDuration }}; from then on Prometheus and browsers "
                    "refuse to talk to the service. A new one in its files is taken up by itself."
                ),
                when="[[certificate_expires|words]] or less until it ends",
            ),
        ),
    ),
    Group(
        name="clio-configuration",
        rules=(
            Alert(
                name="ClioConfigDiffers",
                severity="warning",
                scope="cluster",
                wait="30m",
                dashboard="clio-config",
                expr=("count by ([[cluster]]) (max by ([[cluster]], sha256) (clio_config_digest_info)) > 1"),
                summary="Nodes of [[the_cluster]] are configured differently",
                description="There are {{ $value }} different runtime configurations.",
                when="more than 1 digest in a cluster",
            ),
            Alert(
                name="ClioConfigUnreadable",
                severity="warning",
                scope="exporter",
                wait="10m",
                dashboard="clio-config",
                expr="clio_config_load_success == 0",
                summary="The runtime configuration {{ $labels.file }} cannot be read",
                description=(
                    "The exporter {{ $labels.instance }} cannot read it or it is not valid; the "
                    "log of the exporter names line and remedy."
                ),
                when="a file cannot be read",
            ),
        ),
    ),
    Group(
        name="clio-control",
        rules=(
            Alert(
                name="ClioControlActionFailed",
                severity="warning",
                scope="control",
                dashboard="clio-exporter",
                comment=(
                    "increase() sees nothing of a counter that begins at 1: a series that was not"
                    " there 15 minutes ago counts from 0."
                ),
                expr="""
                (sum by (job, instance, action) (increase(clio_control_actions_total{outcome!~"success|conflict"}[15m])) > 0)
                  or
                (
                  sum by (job, instance, action) (
                    clio_control_actions_total{outcome!~"success|conflict"}
                      unless
                    clio_control_actions_total{outcome!~"success|conflict"} offset 15m
                  ) > 0
                )
                """,
                summary="A {{ $labels.action }} through the control API failed",
                description='{{ $value | printf "%.0f" }} times in the last 15 minutes; the audit log of {{ $labels.instance }} says on which node, for whom and why.',
                when="a failure in 15 min",
            ),
            Alert(
                name="ClioControlApiDown",
                severity="warning",
                scope="control",
                wait="5m",
                dashboard="clio-exporter",
                expr='up{job="[[control_job]]"} == 0',
                summary="The control API {{ $labels.instance }} is down",
                description=(
                    "Prometheus cannot scrape it: nodes cannot be stopped or restarted from the dashboards."
                ),
                when="`up` 0",
            ),
            Alert(
                name="ClioControlTokensUnusable",
                severity="warning",
                scope="control",
                wait="2m",
                dashboard="clio-exporter",
                expr="clio_control_tokens_file_usable == 0",
                summary="The control API {{ $labels.instance }} cannot use its tokens file",
                description=(
                    "Until it can, no token counts: nobody can stop or restart nodes through it. "
                    "Its log names the file and the remedy."
                ),
                when="`clio_control_tokens_file_usable` 0",
            ),
        ),
    ),
)
