"""What Alembic runs: the revisions, in the transaction that `api/migrate.py` opened."""

from alembic import context

from api.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the caller's transaction holds the lock and all revisions together
)
context.run_migrations()
