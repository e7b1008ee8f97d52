"""What colours mean and where "bad" begins: the same on every dashboard, and the alerts' own numbers.

Green is well, orange wants a look, red wants a hand, purple is a node that hangs, blue and the classic
palette carry no judgement. All are names of Grafana's palette, which has a light and a dark shade of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from clio_exporter.kit.rules import THRESHOLDS

GOOD: Final = "green"
WARN: Final = "orange"
BAD: Final = "red"
HUNG: Final = "purple"
NEUTRAL: Final = "blue"
IDLE: Final = "#8e8e8e"

LITTLE: Final = "super-light-blue"
SOME: Final = "light-blue"
MUCH: Final = "semi-dark-blue"
MOST: Final = "dark-blue"

CPU: Final = "blue"
MEMORY: Final = "purple"
GPU: Final = "super-light-blue"


@dataclass(frozen=True)
class Band:
    """Where a quantity becomes bad.

    Attributes:
        warn: first value that wants a look; None where the only question is bad or not.
        bad: first value that wants a hand; None where nothing about it is urgent.
        low_is_bad: the quantity is bad below these values instead of above.
    """

    warn: float | None
    bad: float | None
    low_is_bad: bool = False

    def steps(self) -> list[models.Threshold]:
        """Grafana's steps, the first without a value."""
        if self.low_is_bad:
            colours = [BAD, WARN, GOOD] if self.warn is not None else [BAD, GOOD]
            values = [self.bad, self.warn] if self.warn is not None else [self.bad]
        else:
            pairs = [(self.warn, WARN), (self.bad, BAD)]
            colours = [GOOD] + [colour for value, colour in pairs if value is not None]
            values = [value for value, _ in pairs if value is not None]
        return [
            models.Threshold(value=value, color=colour)
            for value, colour in zip([None, *values], colours, strict=True)
        ]


def _band(warn: str | None, bad: str | None = None, *, low_is_bad: bool = False) -> Band:
    """The band of alerts' thresholds, by name."""
    return Band(
        None if warn is None else THRESHOLDS[warn].value,
        None if bad is None else THRESHOLDS[bad].value,
        low_is_bad,
    )


# Ratios 0 to 1. There is none for a busy processor: that is what it was bought for.
MEMORY_USED: Final = _band("memory_pressure", "memory_exhausted")
HBM_USED: Final = _band("gpu_memory")
STORAGE_USED: Final = _band("device_full")
WORKERS_BUSY: Final = _band("workers_busy")
COST_ERROR: Final = Band(5, None)
"""No alert: nobody has to act, and tells nothing of whether the method matters."""
UP_RATIO: Final = Band(1, 1 - THRESHOLDS["nodes_down_ratio"].value, low_is_bad=True)
AVAILABILITY: Final = Band(0.999, 0.99, low_is_bad=True)

# Counts.
ANY_IS_BAD: Final = Band(None, 1)
ANY_IS_WORTH_A_LOOK: Final = Band(1, None)
SEVERAL_FILES: Final = Band(2, None)
"""ClioConfigDiffers: more than one."""
QUEUED: Final = _band("queue_length")

# Seconds.
SAMPLE_AGE: Final = Band(120, None)
"""ClioNodeStatisticsStale: no new sample in 2 minutes."""
ROUND_TRIP: Final = Band(0.5, 3)
"""Of one small question; the exporter gives a node up after 3 s, unless configured."""
ALL_ANSWERS: Final = Band(1, 3)
"""Of all questions of a scrape."""
TIME_TO_FULL: Final = _band("forecast_later", "forecast_soon", low_is_bad=True)
TIME_TO_FAILURE: Final = _band("failure_predicted", "failure_imminent", low_is_bad=True)
SCRAPE_TIME: Final = Band(int(THRESHOLDS["scrape_slow"].value * THRESHOLDS["scrape_timeout"].value), None)
"""ClioExporterScrapeSlow."""

# Points of 100. A node under the second number is shown as degraded.
SCORE: Final = Band(90, 60, low_is_bad=True)


def config(band: Band) -> builders.ThresholdsConfig:
    """Thresholds of a panel."""
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(band.steps())


def plain(colour: str = NEUTRAL) -> builders.ThresholdsConfig:
    """Thresholds of a panel that judges nothing."""
    return (
        builders.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=None, color=colour)])
    )


def as_property(band: Band) -> models.DynamicConfigValue:
    """The same as a field override."""
    steps = models.ThresholdsConfig(mode=models.ThresholdsMode.ABSOLUTE, steps=band.steps())
    return models.DynamicConfigValue(id_val="thresholds", value=steps)


Mapping = dict[str, tuple[str, str]]

NODE_STATUS: Final[Mapping] = {
    "0": ("Down", BAD),
    "1": ("Hung", HUNG),
    "2": ("Degraded", WARN),
    "3": ("Up", GOOD),
    "4": ("Up, leader", GOOD),
}
DOWN_REASON: Final[Mapping] = {
    reason: (text, HUNG if reason == "hung" else BAD)
    for reason, text in {
        "refused": "Not running",
        "hung": "Does not answer",
        "unreachable": "Host unreachable",
        "unresolvable": "Unknown host name",
        "connection_lost": "Connection lost",
        "not_a_runtime": "Not a runtime",
        "unsupported": "Unknown protocol",
        "malformed": "Garbled answers",
        "query_failed": "Query failed",
        "transport_unavailable": "Exporter cannot ask",
        "deadline": "No answer in time",
        "duplicate": "Listed twice",
    }.items()
}
"""In words every reason the exporter gives (clio_client/errors.py); a test compares."""
YES_NO: Final[Mapping] = {"0": ("no", IDLE), "1": ("yes", GOOD)}
LEADER: Final[Mapping] = {"0": ("", IDLE), "1": ("leader", NEUTRAL)}
SEVERITY: Final[Mapping] = {"1": ("info", NEUTRAL), "2": ("warning", WARN), "3": ("critical", BAD)}
SUCCESS: Final[Mapping] = {"0": ("failed", BAD), "1": ("ok", GOOD)}
ON_THE_NODE: Final[Mapping] = {"1": ("on the node", NEUTRAL)}
WORKER_STATE: Final[Mapping] = {
    "0": ("up to 1 task/s", IDLE),
    "1": ("up to 10", LITTLE),
    "2": ("up to 100", SOME),
    "3": ("up to 1,000", MUCH),
    "4": ("more", MOST),
    "5": ("stuck", BAD),
    "6": ("stopped", WARN),
}
"""By tens: `boards.node.worker_states`."""


def nothing(text: str) -> models.ValueMapping:
    """Shows a value that is not there as `text`, in grey: absence is not bad, and not 0."""
    result = models.ValueMappingResult(text=text, color=IDLE, index=0)
    options = models.DashboardSpecialValueMapOptions(
        match=models.SpecialValueMatch.NULL_AND_NAN, result=result
    )
    return models.SpecialValueMap(options=options)


def mappings(mapping: Mapping) -> list[models.ValueMapping]:
    """Value mappings of a panel."""
    options = {
        value: models.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(mapping.items())
    }
    return [models.ValueMap(options=options)]
