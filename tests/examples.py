"""The examples of the documentation, to be run as they stand there."""

from __future__ import annotations

import re

from tests.support import ROOT

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(page: str) -> list[str]:
    """The blocks of Python code on a page of docs/, in their order."""
    return _BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
