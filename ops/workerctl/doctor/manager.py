"""The manager, for a node that works through one: does it answer, and does it take the token?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.doctor.finding import Finding, ok, problem
from workerd.errors import ManagerError, TokenRefused

if TYPE_CHECKING:
    from workerd.settings import Settings

PATIENCE = 5.0  # seconds
NEW_TOKEN = "make one where the database is, and set API_TOKEN to it: `workerctl tokens create --scope work NAME`"  # noqa: S105 - a command


async def manager(settings: Settings) -> list[Finding]:
    """Each of the managers that MANAGER_URL names."""
    assert settings.manager_url is not None
    if not settings.api_token:
        return [problem("manager", "API_TOKEN is missing", NEW_TOKEN)]
    return [await _ask(each.strip(), settings.api_token) for each in settings.manager_url.split(",")]


async def _ask(address: str, token: str) -> Finding:
    from workerd.remote.caller import Addresses, Caller

    caller = Caller(Addresses(address), token, PATIENCE, PATIENCE)
    try:
        await caller.ask("GET", "/readyz")
        await caller.ask(
            "GET", "/api/v1/notices", patience=0
        )  # what only the scope `work` may ask, and changes nothing
    except TokenRefused as error:
        return problem("manager", str(error), NEW_TOKEN)
    except ManagerError as error:
        return problem("manager", str(error), "see that `workerctl manager` runs there, and that MANAGER_URL is right")
    finally:
        caller.close()
    return ok("manager", address)
