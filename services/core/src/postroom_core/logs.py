"""Structured logs on standard error, one JSON object a line, or coloured text in a terminal. No bodies; addresses only when configured."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

ADDRESS_KEYS = frozenset({"reverse_path", "recipient", "recipients", "sender"})


def configure(service: str, level: str, *, addresses: bool = False) -> None:
    """Call once, before the first log line."""
    threshold = getattr(logging, level.upper())

    def redact(_: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if not addresses and method != "debug":
            for key in ADDRESS_KEYS & event.keys():
                event[key] = "…"
        return event

    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
