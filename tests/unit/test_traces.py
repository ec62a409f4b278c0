"""Spans of slices, as a collector would get them."""

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from streams.settings import Settings
from streams.traces import SERVICE, Traces

END_NS = 1_700_000_000_000_000_000


def test_a_slice_is_a_span_with_a_span_per_stage_end_to_end() -> None:
    exporter = InMemorySpanExporter()
    traces = Traces("salience", SimpleSpanProcessor(exporter))

    traces.slice(3, 500, [("wait", 0.001), ("decode", 0.25), ("deliver", 0.5)], END_NS)

    *stages, whole = exporter.get_finished_spans()
    assert [span.name for span in stages] == ["wait", "decode", "deliver"]
    assert all(span.parent is not None and span.parent.span_id == whole.context.span_id for span in stages)
    assert (whole.start_time, whole.end_time) == (END_NS - 751_000_000, END_NS)
    assert stages[0].start_time == whole.start_time
    assert [span.end_time for span in stages[:-1]] == [span.start_time for span in stages[1:]]
    assert stages[-1].end_time == END_NS
    assert whole.resource.attributes["service.name"] == SERVICE
    assert whole.attributes is not None
    assert whole.attributes["messaging.destination.partition.id"] == "3"
    assert whole.attributes["messaging.batch.message_count"] == 500


def test_traces_are_off_unless_asked_for() -> None:
    assert not Settings().traces
