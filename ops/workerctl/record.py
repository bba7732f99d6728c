"""A record of the log as people read it."""

from __future__ import annotations

COLOURS = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}


def print_record(record: str) -> None:
    """On a terminal a JSON record becomes time, level, job and message, with the level's colour; elsewhere it stays as it was written."""
    import sys

    if not (sys.stdout.isatty() and record.startswith("{")):
        sys.stdout.write(f"{record}\n")
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.text import Text

    text, level = for_people(record)
    Console(soft_wrap=True).print(Text(text, style=COLOURS.get(level, "")))


def for_people(record: str) -> tuple[str, str]:
    """The text of a JSON record, as `LOG_FORMAT=console` has it but to the second, and its level; what is not one of ours stays."""
    import orjson

    from workerctl.render import brief

    try:
        fields = orjson.loads(record)
        head = f"{brief(fields['ts'])} {fields['level']:<8}"
        job = fields.get("job")
        within = "" if job is None else f"[{' '.join(_attempt(fields))}] "
        lines = [f"{head}{within}{fields['message']}", *filter(None, [fields.get("traceback")])]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return record, ""
    return "\n".join(lines), fields["level"]


def _attempt(fields: dict[str, object]) -> list[str]:
    parts = (("job", "job {}"), ("task", "{}"), ("attempt", "#{}"))
    return [form.format(fields[name]) for name, form in parts if fields.get(name) is not None]
