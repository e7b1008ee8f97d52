"""Monitoring of one job from inside it: an exporter and a Prometheus of its own, and what they leave."""
