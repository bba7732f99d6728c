"""The examples of the documentation, to be run as they stand there."""

from __future__ import annotations

import re

from tests.support import ROOT


def examples(page: str, language: str = "python") -> list[str]:
    """The blocks of code on a page of docs/, in their order."""
    block = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return block.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
