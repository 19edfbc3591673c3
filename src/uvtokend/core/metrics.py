"""Write the status document as Prometheus text, for the textfile collector of node_exporter.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TypeAlias

from uvtokend.core.document import healthy
from uvtokend.core.status import IndexStatus, StatusDocument

#: Labels and a value; and a metric: its name, its help text, and its samples.
_Sample: TypeAlias = tuple[dict[str, str], float]
_Metric: TypeAlias = tuple[str, str, list[_Sample]]
_STATES = ("waiting", "fetching", "retrying", "blocked")


def exposition(document: StatusDocument, now: datetime) -> str:
    """Return all metrics.

    Args:
        document: The status document of the running daemon.
        now: The wall clock, aware UTC.
    """
    metrics: tuple[_Metric, ...] = (
        ("info", "The version of the daemon.", [({"version": document["version"]}, 1)]),
        ("start_time_seconds", "When the daemon started.", _at({}, document["started_at"])),
        ("updated_timestamp_seconds", "When this file was written.", [({}, now.timestamp())]),
        ("delivery_ok", "Whether the sinks hold what they should.", [({}, document["delivery"]["ok"])]),
        ("config_stale", "Whether config.toml must be reloaded.", [({}, document["config_stale"] is not None)]),
        *_of_indexes([index for index in document["indexes"] if index["enabled"]]),
    )
    return "".join(f"{line}\n" for name, text, samples in metrics for line in _lines(f"uvtokend_{name}", text, samples))


def _of_indexes(indexes: list[IndexStatus]) -> Iterator[_Metric]:
    named = [({"index": index["name"]}, index) for index in indexes]
    described = [
        ({**name, "provider": index["provider"] or "", "host": index["host"] or ""}, index) for name, index in named
    ]
    ends = [sample for name, index in named for sample in _at(name, index["expires_at"])]
    states = [({**name, "state": state}, index["state"] == state) for name, index in named for state in _STATES]
    ready: list[_Sample] = [(labels, healthy(index)) for labels, index in described]
    yield "index_ready", "Whether a valid token is delivered.", ready
    yield "index_failures", "Failed fetches in a row.", [(name, index["failures"]) for name, index in named]
    yield "index_expiry_timestamp_seconds", "When the token expires.", ends
    yield "index_state", "What the daemon does about an index: 1 for its state.", [*states]


def _lines(name: str, text: str, samples: list[_Sample]) -> Iterator[str]:
    if not samples:
        return
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        told = ",".join(f'{label}="{_escaped(content)}"' for label, content in labels.items())
        yield f"{name}{{{told}}} {_number(value)}" if told else f"{name} {_number(value)}"


def _at(labels: dict[str, str], time: str | None) -> list[_Sample]:
    return [] if time is None else [(labels, datetime.fromisoformat(time).timestamp())]


def _number(value: float) -> str:
    number = float(value)
    return str(int(number)) if number.is_integer() else f"{number:.3f}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
