"""Alembic's entry: the connection comes from `cluster.db.schema.migrate`."""

from alembic import context

from cluster.db.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
