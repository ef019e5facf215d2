"""Let only the user's own browser in, and let its pages load nothing from elsewhere.

Other programs and web pages can reach a server on this machine. So the first address carries a
random token, which becomes a cookie; the Host header must name this server, against DNS rebinding;
and whatever changes something must come from one of its own pages.
"""

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 32 * 2**20  # bytes of a request
SAFE = ("GET", "HEAD")  # methods that change nothing
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self'; connect-src 'self'; font-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Refuses requests that do not come from the user's own browser.

    Args:
        app: What answers the other requests.
        token: The secret of this server.
        port: Its port.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._cookie = f"faceswap-{port}"  # browsers share cookies between the ports of a host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":  # there are no web sockets
            await self._app(scope, receive, send)
            return
        answer = self._refusal(scope) or self._welcome(scope)
        if answer:
            await answer(scope, receive, _with_headers(send))
            return
        await self._app(scope, _limited(receive), _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if headers.get("host") not in self._hosts:
            return _refused("this server answers only on this machine")
        is_known = self._has_token(headers)
        if not is_known and not self._token_in(scope):
            return _refused(
                "open the address that faceswap review printed: it carries the key to this page"
            )
        if scope["method"] not in SAFE:
            if not is_known or headers.get("origin") not in {f"http://{h}" for h in self._hosts}:
                return _refused("only pages of this server can change something")
            if headers.get("content-type", "").partition(";")[0] != "application/json":
                return _refused("a change must be JSON", 415)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > MAX_BODY:
            return _refused(f"a request may have {MAX_BODY} bytes", 413)
        return None

    def _welcome(self, scope: Scope) -> Response | None:
        """Turn the token in an address into a cookie, and take it out of the address."""
        if not self._token_in(scope):
            return None
        query = [(k, v) for k, v in _query(scope) if k != "token"]
        address = scope["path"] + (f"?{urlencode(query)}" if query else "")
        if address.startswith("//"):  # would name another host
            address = "/"
        answer = RedirectResponse(address, 303)
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        return answer

    def _has_token(self, headers: Headers) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _token_in(self, scope: Scope) -> bool:
        return scope["method"] in SAFE and any(
            name == "token" and self._is_token(value) for name, value in _query(scope)
        )

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(errors="replace"), self._token.encode())


def _query(scope: Scope) -> list[tuple[str, str]]:
    try:
        return parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=100)
    except ValueError:  # too many fields
        return []


def _refused(why: str, status: int = 403) -> Response:
    return PlainTextResponse(f"refused: {why}\n", status)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending


class BodyTooLargeError(Exception):
    """A request sends more than it announced and more than is allowed."""


def _limited(receive: Receive) -> Receive:
    """Stop a body that is sent in chunks, without a length, at the limit."""
    total = 0

    async def receiving() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MAX_BODY:
            raise BodyTooLargeError
        return message

    return receiving
