"""What one API process holds, for the views: its settings, its database, the heads it knows."""

from dataclasses import dataclass
from typing import Any

from flask import current_app, g

from api.contract import Contract
from api.database import Database
from api.heads import Heads
from api.settings import ApiSettings
from api.store import Signer

EXTENSION = "tukang"


@dataclass(frozen=True, slots=True)
class Process:
    settings: ApiSettings
    database: Database
    heads: Heads
    contract: Contract
    signer: Signer


def here() -> Process:
    """The process that serves the request at hand."""
    found: Process = current_app.extensions[EXTENSION]
    return found


def query() -> dict[str, Any]:
    """The request's parameters, cast and with defaults, as the contract says."""
    found: dict[str, Any] = g.query
    return found


def body() -> Any:
    """The request's body, as the contract says."""
    return g.body
