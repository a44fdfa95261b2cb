"""`tukang sql`: DuckDB over the live files. Each topic is a view by its name, `<topic>__dead_letters` another.

Knows only the contract and the store: which files are live the API says, DuckDB reads them where they lie. Nothing is
written anywhere. Only views that a query names are made, because each costs a look at its files.
"""

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import botocore.session
import duckdb
import rich
from botocore.exceptions import BotoCoreError
from rich import box
from rich.table import Table
from rich.text import Text

from loaders.feed import Feed, FeedError, FeedUnavailable, Gone
from loaders.run import SYSTEM
from loaders.settings import LoaderSettings, SettingsWrong, load_settings
from loaders.shape import List, Struct, Type, literal, quoted, write_type

Form = Literal["table", "csv", "json"]
Show = Callable[[Table | str], None]

DEAD_LETTERS = "__dead_letters"
SHOWN = 1_000  # rows of a table for a person; csv and json have all
THREADS = 8  # reading from a store is mostly waiting
PATIENCE_S = 10.0
TIMEOUT_S = 15.0  # for one answer of the API

_HEADERS = List(Struct((("key", "VARCHAR"), ("value", "BLOB"))))
_DEAD_COLUMNS = Struct(
    (
        ("_lake_partition", "INTEGER"), ("_offset", "BIGINT"), ("_timestamp", "TIMESTAMP WITH TIME ZONE"),
        ("_key", "BLOB"), ("_headers", _HEADERS), ("_value", "BLOB"), ("_reason", "VARCHAR"),
        ("_reason_text", "VARCHAR"), ("_reason_at", "BIGINT"), ("_first_seen", "TIMESTAMP WITH TIME ZONE"),
    )
)  # fmt: skip
_SCALARS = {"boolean": "BOOLEAN", "integer": "BIGINT", "double": "DOUBLE", "string": "VARCHAR", "json": "VARCHAR",
            "timestamp": "TIMESTAMP WITH TIME ZONE", "date": "DATE"}  # fmt: skip
_READS = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}


class SqlRefused(Exception):
    """The query cannot be answered; the message says why and what to do."""


class _Once:
    """Says on stderr that the API is waited for, the first time only."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, why: str) -> None:
        if not self._said:
            print(f"waiting for the API, up to {PATIENCE_S:.0f} s: {why}", file=sys.stderr)  # noqa: T201
        self._said = True


def sql(
    query: str,
    *,
    form: Form = "table",
    settings: LoaderSettings | None = None,
    show: Show = rich.print,
) -> None:
    """Answers one query on stdout: as a table for a person, by `show`, or as CSV or JSON. Raises `SqlRefused`."""
    try:
        settings = settings or load_settings()
        with duckdb.connect() as connection:
            _only_reads(connection, query)
            feed = Feed(
                settings.api, token=settings.token_source, loader="sql", patience_s=PATIENCE_S,
                timeout_s=TIMEOUT_S, on_wait=_Once(), ca=str(settings.api_ca) if settings.api_ca else None,
            )  # fmt: skip
            try:
                topics = feed.topics()
                if re.fullmatch(r"\s*show\s+(all\s+)?tables\s*;?\s*", query, re.IGNORECASE):
                    query = f"SELECT unnest([{', '.join(map(literal, topics))}]::VARCHAR[]) AS name"
                _open_store(connection, settings)
                for topic, what in _named(query, topics):
                    _make_view(connection, feed, topic, what)
            finally:
                feed.close()
            _answer(connection, query, form, topics, show)
    except (SettingsWrong, FeedError, FeedUnavailable, Gone) as error:
        raise SqlRefused(str(error)) from error


def _only_reads(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise SqlRefused(str(error)) from error
    if len(statements) != 1 or statements[0].type not in _READS:
        raise SqlRefused("One query at a time, and queries only: the lake is not changed by SQL.")


def _named(query: str, topics: list[str]) -> Iterator[tuple[str, str]]:
    """Topics whose views the query may mean, by their names in its text: one too many costs time, nothing else.

    DuckDB takes names that differ in case for one; then the query must write them as they are.
    """
    views = {topic + suffix: (topic, what) for topic in topics
             for suffix, what in (("", "rows"), (DEAD_LETTERS, "dead_letters"))}  # fmt: skip
    meant = [name for name in views if _occurs(name, query, re.IGNORECASE)]
    for name in meant:
        alike = [other for other in meant if other.lower() == name.lower()]
        if len(alike) > 1 and not _occurs(name, query):
            continue
        if len(alike) > 1 and any(_occurs(other, query) for other in alike if other != name):
            raise SqlRefused(
                f"Names that differ only in case are one to DuckDB: ask for {' and '.join(alike)} apart."
            )
        yield views[name]


def _occurs(name: str, query: str, flags: int = 0) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", query, flags) is not None


def _make_view(connection: duckdb.DuckDBPyConnection, feed: Feed, topic: str, what: str) -> None:
    files = [file for file in feed.files(topic, what=what).files if file.what == what]
    if files:
        listed = ", ".join(literal(file.url) for file in files)
        # By name: later files have more columns. The widest type holds: an integer column that became double is double.
        body = f"SELECT * FROM read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
    else:
        columns = _DEAD_COLUMNS if what == "dead_letters" else _columns(feed.schema(topic))
        body = f"SELECT {', '.join(f'NULL::{write_type(type_)} AS {quoted(name)}' for name, type_ in columns.fields)}"
        body += " WHERE false"
    name = topic + (DEAD_LETTERS if what == "dead_letters" else "")
    try:
        connection.execute(f"CREATE VIEW {quoted(name)} AS {body}")
    except (duckdb.HTTPException, duckdb.IOException) as error:
        raise SqlRefused(
            f"The store does not serve the files of {topic}: {_first_line(error)}. Check TUKANG_S3_ENDPOINT and the"
            " credentials that boto3 finds; `tukang verify` tells whether an object is missing."
        ) from error


def _columns(schema: dict[str, Any]) -> Struct:
    """The columns that a topic's files would have if there were any."""
    own = tuple((each["column"], _type(each["type"])) for each in schema["columns"] if _kept(each["type"]))
    return Struct((*(field for field in SYSTEM.fields if field[0] != "_sequence"), *own))


def _type(said: Any) -> Type:
    """A type of the contract as DuckDB's."""
    if isinstance(said, dict):
        if "list" in said:
            return List(_type(said["list"]))
        return Struct(
            tuple((each["column"], _type(each["type"])) for each in said["struct"] if _kept(each["type"]))
        )
    return _SCALARS.get(said) or str(said).upper()


def _kept(said: Any) -> bool:
    """Whether files have a column for it: something below an object or list has a type."""
    if isinstance(said, dict):
        return _kept(said["list"]) if "list" in said else any(_kept(each["type"]) for each in said["struct"])
    return bool(said != "null")


def _open_store(connection: duckdb.DuckDBPyConnection, settings: LoaderSettings) -> None:
    """Loads DuckDB's reader of S3 from its package, and gives it the credentials that boto3 would use."""
    # No INSTALL: what a package brings needs no network, and is of the same version as DuckDB.
    connection.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
    connection.execute(f"LOAD {literal(str(_extension()))}")
    try:
        session = botocore.session.get_session()
        credentials = session.get_credentials()
        region = session.get_config_variable("region") or "us-east-1"
    except BotoCoreError as error:
        raise SqlRefused(f"The credentials of the store cannot be read: {error}") from error
    options = {"REGION": literal(region)}
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        options |= {"KEY_ID": literal(frozen.access_key or ""), "SECRET": literal(frozen.secret_key or "")}
        if frozen.token:
            options["SESSION_TOKEN"] = literal(frozen.token)
    if settings.s3_endpoint:
        address = urlsplit(settings.s3_endpoint)
        options |= {
            "ENDPOINT": literal(address.netloc + address.path.rstrip("/")),
            "URL_STYLE": literal("path"),
            "USE_SSL": str(address.scheme == "https").lower(),
        }
    said = ", ".join(f"{name} {value}" for name, value in options.items())
    connection.execute(f"CREATE SECRET (TYPE s3, {said})")
    connection.execute(f"SET threads = {max(THREADS, os.cpu_count() or 1)}; SET TimeZone = 'UTC'")


def _extension() -> Path:
    package = importlib.util.find_spec("duckdb_extension_httpfs")
    folder = Path(package.origin).parent if package and package.origin else Path()
    found = folder / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"
    if not found.is_file():
        raise SqlRefused(
            f"DuckDB {duckdb.__version__} has no reader of S3 here: "
            f"pip install duckdb-extension-httpfs=={duckdb.__version__}"
        )
    return found


def _answer(
    connection: duckdb.DuckDBPyConnection, query: str, form: Form, topics: list[str], show: Show
) -> None:
    try:
        answer = connection.sql(query)
        if form == "table":
            _show(answer, show)
        elif form == "csv":
            sys.stdout.flush()
            answer.write_csv("/dev/stdout", header=True)
        else:
            sys.stdout.flush()
            connection.execute(f"COPY ({answer.sql_query()}) TO '/dev/stdout' (FORMAT json, ARRAY true)")
    except duckdb.CatalogException as error:
        known = ", ".join(map(quoted, topics)) or "none yet"
        raise SqlRefused(
            f"{_first_line(error).rstrip('.!')}. Topics: {known}; its dead letters are TOPIC{DEAD_LETTERS}."
        ) from error
    except duckdb.Error as error:
        raise SqlRefused(str(error)) from error


def _show(answer: duckdb.DuckDBPyRelation, show: Show) -> None:
    """A table for a person. DuckDB writes the values: it knows all its types, and wants no package for time zones."""
    table = Table(box=box.SIMPLE_HEAVY)
    for name, type_ in zip(answer.columns, answer.types, strict=True):
        number = str(type_).split("(")[0] in {
            "BIGINT",
            "INTEGER",
            "DOUBLE",
            "FLOAT",
            "HUGEINT",
            "DECIMAL",
            "UBIGINT",
        }
        table.add_column(Text(name), justify="right" if number else "left")
    casts = ", ".join(f"CAST(#{i + 1} AS VARCHAR)" for i in range(len(answer.columns)))
    rows = answer.project(casts)
    found = rows.fetchmany(SHOWN + 1)
    for row in found[:SHOWN]:
        table.add_row(*(Text("NULL", style="dim") if value is None else Text(value) for value in row))
    show(table)
    if len(found) > SHOWN:
        show(f"... and more rows than {SHOWN:,}: --format csv or json has all.")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
