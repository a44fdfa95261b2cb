"""Opaque page tokens: what the next page needs to go on, as text. They carry no rights: a forged one finds no more."""

import base64
import binascii
from typing import Any

import orjson

from api.problems import Problem


def page_token(**state: int | str | None) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(state)).rstrip(b"=").decode()


def page_state(token: str | None, **kinds: type) -> dict[str, Any] | None:
    """The state of a token with exactly these names and types; None without a token. Raises Problem."""
    if token is None:
        return None
    try:
        padded = token + "=" * (-len(token) % 4)
        state = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        state = None
    if not isinstance(state, dict) or {name: type(value) for name, value in state.items()} != kinds:
        raise Problem(
            "request-invalid",
            400,
            "page: must be `next_page` of an answer to the same request",
            errors=["page"],
        )
    if any(isinstance(value, int) and not 0 <= value < 2**63 for value in state.values()):
        raise Problem("request-invalid", 400, "page: must be `next_page` of an answer", errors=["page"])
    return state
