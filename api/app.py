"""The application: one factory that wires nouns to paths. It decides nothing."""

from flask import Flask, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from api import (
    accept,
    audit,
    catalogue,
    claims,
    commits,
    defaults,
    docs,
    erasures,
    expiry,
    feed,
    files,
    folding,
    headers,
    health,
    holds,
    ledger,
    loader_feed,
    loaders,
    metrics,
    periods,
    positions,
    problems,
    schemas,
    sweep,
    tokens,
    topics,
    workers,
)
from api.access import NOBODY, Failures
from api.admission import admit
from api.contract import load_contract
from api.database import Clock, Database, database_clock, make_engine
from api.heads import Heads
from api.migrate import upgrade_at_start
from api.process import EXTENSION, Process, here
from api.settings import ApiSettings
from api.store import Signer

NOUNS = (
    health,
    topics,
    accept,
    defaults,
    positions,
    commits,
    feed,
    files,
    schemas,
    periods,
    ledger,
    workers,
    loaders,
    loader_feed,
    tokens,
    audit,
    docs,
    expiry,
    claims,
    sweep,
    catalogue,
    erasures,
    folding,
    holds,
    metrics,
)


def create_app(settings: ApiSettings, clock: Clock = database_clock, *, prepared: bool = False) -> Flask:
    """The application over the settings' database, migrated when it is empty or SQLite.

    `clock` is the database's time in microseconds since 1970 UTC; `prepared`: the database was migrated by whoever
    calls, and is not asked now. Raises SchemaError when the database is not one that
    this release runs on, SQLAlchemy's errors when it does not answer.
    """
    app = Flask("api", static_folder=None)
    # Room for the framing of a body at the limit.
    app.config["MAX_CONTENT_LENGTH"] = settings.api_body_limit
    database = Database(make_engine(settings.database, settings.database_connections), clock)
    if not prepared:
        upgrade_at_start(database)
    contract = load_contract()
    app.extensions[EXTENSION] = Process(settings, database, Heads(database), contract, Signer(settings))
    problems.register(app)
    headers.register(app, tls=settings.tls_cert is not None)
    if settings.api_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.api_proxies)  # type: ignore[method-assign]

    metrics.register(app, contract)
    failures = Failures()

    @app.before_request
    def _check() -> None:
        g.caller = NOBODY
        operation = contract.operation(request)
        if operation is not None:
            g.caller = admit(request, operation.scopes, here(), failures, all_topics=operation.all_topics)
        g.query, g.body = contract.check(request)

    for noun in NOUNS:
        app.register_blueprint(noun.blueprint)
    return app
