"""Grafana dashboards for CLIO clusters: the generator, what it makes, and provisioning files."""
