"""The text of an exception, whatever its class does when it is asked for it."""

from __future__ import annotations

LONGEST = 16_000  # characters


def text_of(error: BaseException) -> str:
    """What it says, cut to 16,000 characters."""
    try:
        text = str(error)
        return str.__str__(text)[:LONGEST]
    except BaseException:  # noqa: BLE001 - a class of users may raise anything here, SystemExit too
        return f"({name_of(error)} cannot say what is wrong)"


def name_of(error: BaseException) -> str:
    """The name of its class."""
    return str(type.__getattribute__(type(error), "__name__"))


def message_of(error: BaseException) -> str:
    """What it says in one line; its class where it says nothing."""
    return " ".join(text_of(error).split()) or name_of(error)


def line_of(error: BaseException) -> str:
    """Class and text, in one line."""
    text = text_of(error).strip()
    return f"{name_of(error)}: {text.splitlines()[0]}" if text else name_of(error)
