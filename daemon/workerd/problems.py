"""Plain words for values of settings that cannot be used: pydantic's are for programmers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerd.redact import is_secret, masked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import ValidationError

# By the type of pydantic's error; NAME alone has a pattern.
_WORDS = {
    "bool_parsing": "has to be true or false",
    "float_parsing": "has to be a number",
    "int_parsing": "has to be a whole number",
    "int_parsing_size": "has to be a whole number of fewer digits",
    "string_pattern_mismatch": "has to be 1 to 64 letters, digits, '.', '_' or '-', the first a letter or a digit",
    "too_short": "has to name at least one",
}


def told(error: ValidationError, values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[str]:
    """A line for each: the setting, its value, what is allowed, and where it was read."""
    for each in error.errors():
        name = str(each["loc"][0])
        text = str(values.get(name, ""))
        value = masked(text) if is_secret(name) else text
        said = _WORDS.get(each["type"], each["msg"])
        reason = said.removeprefix("Value error, ").replace("Input should be", "has to be")
        yield f"{name.upper()}={value!r}: {reason[:1].lower() + reason[1:]} ({sources[name]})"
