"""storage, tenancy, serving, pipelines; a journal that is a chain, and says what was refused

Revision: 0003, after: 0002
"""

import sqlalchemy as sa
from alembic import op

from cluster.db.tables import Int, Utc

revision = "0003"
down_revision = "0002"


OF_ONE_PROJECT = """
UPDATE events SET project = (SELECT MAX(project) FROM sessions WHERE sessions.name = events.target)
WHERE kind LIKE 'session%'
  AND (SELECT COUNT(DISTINCT project) FROM sessions WHERE sessions.name = events.target) = 1
"""
"""Events know their project from now on; of older ones it is known where only one has sessions of the name."""


def upgrade() -> None:
    op.create_table(
        "endpoints",
        sa.Column("id", Int, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("resource_group", sa.String(), nullable=True),
        sa.Column("replicas", Int, nullable=False),
        sa.Column("revision", Int, nullable=False),
        sa.Column("former", Int, nullable=True),
        sa.Column("updating", Utc(), nullable=True),
        sa.Column("failures", Int, server_default="0", nullable=False),
        sa.Column("failed_at", Utc(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_since", Utc(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("autoscaling", sa.JSON(), nullable=True),
        sa.Column("measured", sa.JSON(), nullable=False),
        sa.Column("created", Utc(), nullable=False),
        sa.Column("deleted", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_endpoints_name"), ["name"], unique=False)

    op.create_table(
        "models",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("card", sa.JSON(), nullable=False),
        sa.Column("size", Int, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_since", Utc(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("created", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "pipeline_runs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("pipeline", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_since", Utc(), nullable=False),
        sa.Column("created", Utc(), nullable=False),
        sa.Column("ended", Utc(), nullable=True),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("pipeline_runs", schema=None) as batch_op:
        batch_op.create_index("runs_by_end", ["ended"], unique=False)

    op.create_table(
        "pipelines",
        sa.Column("id", Int, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("created", Utc(), nullable=False),
        sa.Column("modified", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project", "name", name="one_pipeline_a_name"),
    )
    op.create_table(
        "endpoint_revisions",
        sa.Column("endpoint", Int, nullable=False),
        sa.Column("revision", Int, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("launch", sa.JSON(), nullable=False),
        sa.Column("created", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["endpoint"], ["endpoints.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("endpoint", "revision"),
    )
    op.create_table(
        "grants",
        sa.Column("folder", Int, nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("permission", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["folder"], ["folders.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("folder", "scope", "name"),
    )
    op.create_table(
        "replicas",
        sa.Column("session", sa.String(), nullable=False),
        sa.Column("endpoint", Int, nullable=False),
        sa.Column("revision", Int, nullable=False),
        sa.Column("port", Int, nullable=False),
        sa.Column("draining", Utc(), nullable=True),
        sa.Column("leaving", Utc(), nullable=True),
        sa.Column("gone", Utc(), nullable=True),
        sa.ForeignKeyConstraint(["endpoint"], ["endpoints.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["session"],
            ["sessions.id"],
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("session"),
    )
    with op.batch_alter_table("replicas", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_replicas_endpoint"), ["endpoint"], unique=False)

    op.create_table(
        "run_steps",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("place", Int, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_since", Utc(), nullable=False),
        sa.Column("tries", Int, nullable=False),
        sa.Column("session", sa.String(), nullable=True),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["pipeline_runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "step"),
    )
    op.create_table(
        "scaling_decisions",
        sa.Column("id", Int, autoincrement=True, nullable=False),
        sa.Column("endpoint", Int, nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("seen", sa.JSON(), nullable=False),
        sa.Column("before", Int, nullable=False),
        sa.Column("after", Int, nullable=False),
        sa.Column("reason", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["endpoint"], ["endpoints.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("scaling_decisions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_scaling_decisions_endpoint"), ["endpoint"], unique=False)

    op.create_table(
        "uploads",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("folder", Int, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("length", Int, nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("created", Utc(), nullable=False),
        sa.Column("expires", Utc(), nullable=False),
        sa.Column("finished", Utc(), nullable=True),
        sa.ForeignKeyConstraint(["folder"], ["folders.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.add_column(sa.Column("owner", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("project", sa.String(), nullable=True))
    op.execute(OF_ONE_PROJECT)

    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.add_column(sa.Column("result", sa.String(), server_default="done", nullable=False))
        batch_op.add_column(sa.Column("reasons", sa.JSON(), server_default="[]", nullable=False))
        batch_op.add_column(sa.Column("chain", sa.String(), nullable=True))

    with op.batch_alter_table("folders", schema=None) as batch_op:
        batch_op.add_column(sa.Column("state", sa.String(), server_default="ready", nullable=False))
        batch_op.add_column(sa.Column("state_since", Utc(), nullable=True))
        batch_op.add_column(sa.Column("source", Int, nullable=True))
        batch_op.add_column(sa.Column("reasons", sa.JSON(), server_default="[]", nullable=False))
        batch_op.add_column(sa.Column("contents", sa.JSON(), server_default="[]", nullable=False))

    op.create_index("keys_by_time", "idempotency_keys", ["at"])
    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.add_column(sa.Column("origin", sa.String(), nullable=True))

    with op.batch_alter_table("members", schema=None) as batch_op:
        batch_op.add_column(sa.Column("role", sa.String(), server_default="user", nullable=False))

    with op.batch_alter_table("projects", schema=None) as batch_op:
        batch_op.add_column(sa.Column("description", sa.Text(), nullable=True))

    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("read_only", sa.JSON(), server_default="[]", nullable=False))
        batch_op.add_column(sa.Column("shown", sa.JSON(), server_default="[]", nullable=False))

    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.alter_column("digest", new_column_name="id")
        batch_op.add_column(sa.Column("secret", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("name", sa.String(), server_default="", nullable=False))
        batch_op.add_column(sa.Column("created", Utc(), nullable=True))
        batch_op.add_column(sa.Column("expires", Utc(), nullable=True))

    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.add_column(sa.Column("full_name", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("subject", sa.String(), nullable=True))
        batch_op.create_unique_constraint("one_user_a_subject", ["subject"])


def downgrade() -> None:
    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.drop_constraint("one_user_a_subject", type_="unique")
        batch_op.drop_column("subject")
        batch_op.drop_column("full_name")

    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.drop_column("expires")
        batch_op.drop_column("created")
        batch_op.drop_column("name")
        batch_op.drop_column("secret")
        batch_op.alter_column("id", new_column_name="digest")

    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.drop_column("shown")
        batch_op.drop_column("read_only")

    with op.batch_alter_table("projects", schema=None) as batch_op:
        batch_op.drop_column("description")

    with op.batch_alter_table("members", schema=None) as batch_op:
        batch_op.drop_column("role")

    op.drop_index("keys_by_time", table_name="idempotency_keys")
    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.drop_column("origin")

    with op.batch_alter_table("folders", schema=None) as batch_op:
        batch_op.drop_column("contents")
        batch_op.drop_column("reasons")
        batch_op.drop_column("source")
        batch_op.drop_column("state_since")
        batch_op.drop_column("state")

    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_column("project")
        batch_op.drop_column("owner")

    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.drop_column("chain")
        batch_op.drop_column("reasons")
        batch_op.drop_column("result")

    op.drop_table("uploads")
    with op.batch_alter_table("scaling_decisions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_scaling_decisions_endpoint"))

    op.drop_table("scaling_decisions")
    op.drop_table("run_steps")
    with op.batch_alter_table("replicas", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_replicas_endpoint"))

    op.drop_table("replicas")
    op.drop_table("grants")
    op.drop_table("endpoint_revisions")
    op.drop_table("pipelines")
    with op.batch_alter_table("pipeline_runs", schema=None) as batch_op:
        batch_op.drop_index("runs_by_end")

    op.drop_table("pipeline_runs")
    op.drop_table("models")
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_endpoints_name"))

    op.drop_table("endpoints")
