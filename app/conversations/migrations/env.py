"""Alembic runs this file; ``migrate`` gives it the connection, with its transaction and lock."""

from alembic import context

from app.conversations.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # SQLite's too: all of a migration or nothing
)
with context.begin_transaction():
    context.run_migrations()
