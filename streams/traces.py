"""OpenTelemetry traces of slices: off by default (``SALIENCE_TRACES``); spans are made after a slice, never within it.

A span per slice with a span per stage, named and described by OpenTelemetry's conventions for messaging. The SDK's own
variables say where they go (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``).
"""

from collections.abc import Sequence
from typing import Any

from streams.mendable import MendableError

SERVICE = "salience-worker"


class TracesError(MendableError):
    """Traces are on but cannot be made; the message says what to install."""


class Traces:
    """Makes spans of a worker's slices. ``processor``: a span processor; None: to an OTLP collector, in batches.

    Raises `TracesError` where OpenTelemetry is not installed.
    """

    def __init__(self, group: str, processor: Any = None) -> None:
        try:
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - the extra `trace`
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - the extra `trace`
        except ImportError as error:
            raise TracesError("SALIENCE_TRACES wants OpenTelemetry: pip install 'salience[trace]'") from error
        self._group = group
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: SERVICE}))
        self._provider.add_span_processor(processor or _to_collector())
        self._tracer = self._provider.get_tracer("salience")

    def slice(self, lane: int, records: int, laps: Sequence[tuple[str, float]], end_ns: int) -> None:
        """Trace a slice of ``records`` that ended at ``end_ns`` (UTC epoch); ``laps``: its stages and their seconds."""
        from opentelemetry.trace import SpanKind, set_span_in_context  # noqa: PLC0415 - the extra `trace`

        at_ns = end_ns - round(1e9 * sum(seconds for _, seconds in laps))
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.operation.name": "slice",
            "messaging.consumer.group.name": self._group,
            "messaging.destination.partition.id": str(lane),
            "messaging.batch.message_count": records,
        }
        whole = self._tracer.start_span("slice", kind=SpanKind.CONSUMER, attributes=attributes, start_time=at_ns)
        context = set_span_in_context(whole)
        for stage, seconds in laps:
            span = self._tracer.start_span(stage, context=context, start_time=at_ns)
            at_ns += round(1e9 * seconds)
            span.end(at_ns)
        whole.end(end_ns)


def _to_collector() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - the extra `trace`

    return BatchSpanProcessor(OTLPSpanExporter())
