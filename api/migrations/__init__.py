"""Alembic's revisions, numbered; each only expands. `api/migrate.py` runs them."""
