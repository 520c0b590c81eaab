"""Metrics for Prometheus, made from what was seen last: units in the names, and labels that stay few.

No label names a session or a stack, since each would be a series that stays for ever: the HTTP interface and the log
tell of those. Counters are those of the listener and begin anew when it restarts, as Prometheus expects; what the
journals hold is a gauge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from otf_stream import __version__
from otf_stream.monitor.monitor import Monitor
from otf_stream.monitor.state import Listener, Session, Snapshot

CONTENT_TYPE = CONTENT_TYPE_LATEST
_STATES = ("arriving", "arrived", "restoring", "restored", "failed")
_SEVERITIES = ("info", "warning", "critical")
_MOST_REASONS = 50
_P = "otf_stream_"


class Metrics(Collector):
    """Collects the metrics of a monitor.

    Parameters
    ----------
    monitor
        Whose.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return them in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        monitor, snapshot = self._monitor, self._monitor.latest
        yield _labelled("build_info", "Always 1; the version of otf_stream is its label.", "version", {__version__: 1})
        yield from _processes(snapshot, monitor.resident)
        if snapshot.listener is not None:
            yield from _listener(snapshot.listener)
        yield from _sessions(snapshot)
        yield from _deadlines(snapshot)
        alarms = {severity: sum(a.severity == severity for a in snapshot.alarms) for severity in _SEVERITIES}
        yield _labelled("alarms", "Alarms that are on, by severity.", "severity", alarms)
        refused = {reason: monitor.access.refused[reason] for reason in ("host", "origin", "token")}
        yield _counters("monitor_refused_requests", "HTTP requests that were refused, by why.", "reason", refused)
        yield _gauge("monitor_look_seconds", "Seconds that the last look at the data folder took.", monitor.took)
        yield _gauge("monitor_seen_timestamp_seconds", "When the data folder was looked at, in UNIX time.", snapshot.at)


def _processes(snapshot: Snapshot, resident: Mapping[str, int]) -> Iterator[Metric]:
    listener, worker = snapshot.listener, snapshot.worker
    up = {"listener": bool(listener and listener.current), "worker": bool(worker and worker.current)}
    yield _labelled("process_up", "1 where a process of the service is at work, 0 where not.", "process", up)
    yield _labelled("process_resident_bytes", "Memory of a process of the service.", "process", resident)
    if worker and worker.current:
        yield _gauge("worker_stacks_waiting", "Stacks that the worker knows to be restored.", worker.stacks)


def _listener(listener: Listener) -> Iterator[Metric]:
    for name, said, count in (
        (
            "received_planes",
            "Plane messages since the listener started, duplicates included.",
            listener.received,
        ),
        ("durable_planes", "Planes that the listener made durable since it started.", listener.durable),
        (
            "duplicate_planes",
            "Planes that came again since the listener started.",
            listener.duplicates,
        ),
        ("durable_bytes", "Bytes of pixels that the listener made durable since it started.", listener.bytes),
    ):
        yield CounterMetricFamily(f"{_P}listener_{name}", said, value=count)
    reasons = dict(sorted(listener.refused.items())[:_MOST_REASONS])
    said = "Messages and connections that the listener refused since it started, by why (docs/protocol.md)."
    yield _counters("listener_refused", said, "reason", reasons)
    yield _gauge("listener_queue_bytes", "Bytes of pixels that came and are not durable yet.", listener.queue_bytes)
    yield _gauge("listener_connections", "Connections of microscopes.", listener.connections)
    yield _gauge("listener_sessions", "Sessions that the listener has open.", listener.sessions)
    yield _gauge("listener_holding", "1 while planes are held back for want of disk.", listener.holding)
    yield _gauge("disk_free_bytes", "Bytes that are free on the disk of the data folder.", listener.disk_free)
    yield _gauge("disk_reserve_bytes", "Bytes that are to stay free on that disk.", listener.disk_reserve)


def _sessions(snapshot: Snapshot) -> Iterator[Metric]:
    totals, sessions = snapshot.totals, snapshot.sessions
    counts = {
        "open": sum(session.closed is None for session in sessions),
        "closed": sum(session.closed is not None and not session.done for session in sessions),
        "done": sum(session.done for session in sessions),
    }
    yield _labelled("sessions", "Sessions in the data folder: open, closed (no planes come), or done.", "state", counts)
    yield _gauge("planes_expected", "Planes announced, over all sessions in the data folder.", totals.expected)
    yield _gauge("planes_durable", "Planes on disk, as the journals of all sessions have them.", totals.durable)
    yield _gauge("planes_missing", "Planes that will not come any more, or were passed by for seconds.", totals.missing)
    yield _gauge("planes_damaged", "Planes that were found damaged on the disk; they count as missing.", totals.damaged)
    yield _gauge("planes_per_second", "Planes that become durable per second, over 5 s.", totals.planes_per_s)
    yield _gauge("bytes_per_second", "Bytes of pixels that become durable per second, over 5 s.", totals.bytes_per_s)
    states = {state: totals.states.get(state, 0) for state in _STATES}
    yield _labelled("stacks", "Stacks in the data folder, by state.", "state", states)


def _deadlines(snapshot: Snapshot) -> Iterator[Metric]:
    stacks = [stack for session in snapshot.sessions for stack in session.stacks]
    left = [stack.seconds_left for stack in stacks if stack.seconds_left is not None]
    if left:
        yield _gauge("nearest_deadline_seconds", "Seconds to the nearest deadline; negative if late.", min(left))
    restored = [stack for stack in stacks if stack.restored_at is not None and stack.in_hand_s is not None]
    if restored:
        last = max(restored, key=lambda stack: stack.restored_at or 0.0)
        said = "Seconds that were left when the latest stack was restored; negative: it was late."
        yield _gauge("last_margin_seconds", said, last.in_hand_s or 0.0)
    late = sum(_late(session) for session in snapshot.sessions)
    yield _gauge("stacks_late", "Stacks, of those told of in full, that are or were restored late.", late)
    yield _gauge("sessions_paused", "Sessions whose learning waits.", sum(s.paused for s in snapshot.sessions))


def _late(session: Session) -> int:
    return sum(
        (stack.in_hand_s is not None and stack.in_hand_s < 0)
        or (stack.seconds_left is not None and stack.seconds_left < 0)
        for stack in session.stacks
    )


def _gauge(name: str, said: str, value: float) -> Metric:
    return GaugeMetricFamily(_P + name, said, value=float(value))


def _labelled(name: str, said: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(_P + name, said, labels=[label])
    for value, count in values.items():
        family.add_metric([value], float(count))
    return family


def _counters(name: str, said: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(_P + name, said, labels=[label])
    for value, count in values.items():
        family.add_metric([value], float(count))
    return family
