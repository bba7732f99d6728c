"""What is shown of the variables of OpenTelemetry and Sentry."""

from __future__ import annotations

import pytest

from workerd.libraries import shown
from workerd.redact import MASK


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example:4318/v1", "http://collector.example:4318/v1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://k3y@collector.example", f"https://{MASK}@collector.example"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://a.example/x?api_key=k3y", f"https://a.example/x?api_key={MASK}"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=k3y", MASK),
        ("OTEL_RESOURCE_ATTRIBUTES", "site=http://shop.example,tier=1", "site=http://shop.example,tier=1"),
    ],
)
def test_addresses_and_headers_are_shown_without_their_keys(name: str, value: str, told: str) -> None:
    assert shown(name, value) == told
