"""Prometheus's recording and alerting rules, made from one table for the names and limits of a place.

from clio_exporter.kit.rules import Options, render

for name, text in render(Options(exporter_job="clio", thresholds={"memory_pressure": 0.8})).items():
    (directory / name).write_text(text)
"""

from clio_exporter.kit.rules.model import Alert, Recording
from clio_exporter.kit.rules.options import Options
from clio_exporter.kit.rules.render import alerts, recordings, render
from clio_exporter.kit.rules.thresholds import THRESHOLDS, Threshold

__all__ = ["THRESHOLDS", "Alert", "Options", "Recording", "Threshold", "alerts", "recordings", "render"]
