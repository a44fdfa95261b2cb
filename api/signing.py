"""The installation's signature: Ed25519 over canonical JSON.

The private key is made at its first use and never leaves the database. The public key stands beside each signature,
also in the lake's copy of the catalogue: so a record can be checked by anybody, and also after the database was lost.
"""

from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, select, update

from api.tables import installation


def canonical(content: Any) -> bytes:
    """The bytes that are signed: JSON in UTF-8, names sorted, no white space."""
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def signed(connection: Connection, content: Any) -> tuple[bytes, bytes]:
    """Signature and public key. In a transaction that writes."""
    stored = connection.execute(select(installation.c.signing_key).with_for_update()).scalar_one()
    key = (
        Ed25519PrivateKey.generate()
        if stored is None
        else Ed25519PrivateKey.from_private_bytes(bytes(stored))
    )
    if stored is None:
        connection.execute(update(installation).values(signing_key=key.private_bytes_raw()))
    return key.sign(canonical(content)), key.public_key().public_bytes_raw()
