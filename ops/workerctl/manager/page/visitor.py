"""Who looks at the page: a token in a cookie that scripts cannot read and other sites cannot send."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse

from workerctl.manager.problems import Problem

if TYPE_CHECKING:
    from fastapi.responses import Response

    from workerctl.manager.access import Access
    from workerd.queue.tokens import Token

COOKIE = "workerd_token"
LASTS = 12 * 3600  # seconds
FIELD = "csrf"


@dataclass(frozen=True)
class Visitor:
    """`csrf` is what every form has to carry: it can be made from the cookie alone."""

    token: Token
    csrf: str

    @property
    def may_operate(self) -> bool:
        return self.token.may("operate")


class NotSignedIn(Exception):
    """Raised where a page wants a visitor: answered by the way to the login."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.answer: Response = RedirectResponse(f"/login?next={quote(here(request), safe='')}", 303)


async def _visitor(request: Request) -> Visitor:
    given = request.cookies.get(COOKIE)
    access: Access = request.app.state.access
    try:
        token = await access.check(given, ("read",))
    except Problem as problem:
        if problem.status == 401:
            raise NotSignedIn(request) from problem
        raise
    return Visitor(token, csrf_of(given or ""))


async def _operator(request: Request, visitor: Annotated[Visitor, Depends(_visitor)]) -> Visitor:
    """For what changes something: the form has to come from one of our pages."""
    given = str((await request.form()).get(FIELD, ""))
    if not hmac.compare_digest(given.encode(), visitor.csrf.encode()):
        raise Problem(403, "this form is not from here, or from an earlier login: go back and load the page again")
    if not visitor.may_operate:
        raise Problem(403, f"the token {visitor.token.name} lacks the scope operate")
    return visitor


Reader = Annotated[Visitor, Depends(_visitor)]
Operator = Annotated[Visitor, Depends(_operator)]


def csrf_of(token: str) -> str:
    return hmac.new(token.encode(errors="surrogateescape"), b"workerd csrf", "sha256").hexdigest()


def admit(request: Request, response: Response, token: str) -> None:
    """Let the browser of this request be a visitor from now on."""
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, token, max_age=LASTS, httponly=True, samesite="strict", secure=secure)


def here(request: Request) -> str:
    """The address of a page, to come back to."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def local(address: Any) -> str:
    """An address of this site: whatever else was given leads to the overview."""
    text = str(address or "/")
    return text if text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() else "/"
