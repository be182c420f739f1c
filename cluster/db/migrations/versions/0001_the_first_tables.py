"""the first tables

Revision: 0001, after:
"""

import sqlalchemy as sa
from alembic import op

from cluster.db.tables import Int, Utc

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", Int, autoincrement=True, nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("operation", sa.JSON(), nullable=False),
        sa.Column("targets", sa.JSON(), nullable=False),
        sa.Column("inverse", sa.JSON(), nullable=True),
        sa.Column("undone_by", Int, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "events",
        sa.Column("seq", Int, autoincrement=True, nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=True),
        sa.Column("message", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_table(
        "folders",
        sa.Column("id", Int, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("size", Int, nullable=False),
        sa.Column("quota", Int, nullable=True),
        sa.Column("trash_id", sa.String(), nullable=True),
        sa.Column("trashed_at", Utc(), nullable=True),
        sa.Column("created", Utc(), nullable=False),
        sa.Column("modified", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("folders", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_folders_name"), ["name"], unique=False)

    op.create_table(
        "idempotency_keys",
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("user", "key"),
    )
    op.create_table("images", sa.Column("name", sa.String(), nullable=False), sa.PrimaryKeyConstraint("name"))
    op.create_table(
        "meta",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table("projects", sa.Column("name", sa.String(), nullable=False), sa.PrimaryKeyConstraint("name"))
    op.create_table(
        "quotas",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("cpu", sa.Float(), nullable=True),
        sa.Column("memory", Int, nullable=True),
        sa.Column("gpu", sa.Float(), nullable=True),
        sa.Column("storage", Int, nullable=True),
        sa.Column("sessions", Int, nullable=True),
        sa.PrimaryKeyConstraint("scope", "name"),
    )
    op.create_table(
        "resource_groups",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("selector", sa.String(), nullable=False),
        sa.Column("backfill", sa.Boolean(), nullable=False),
        sa.Column("preemption", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("image", sa.String(), nullable=True),
        sa.Column("command", sa.Text(), nullable=True),
        sa.Column("workdir", sa.Text(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_since", Utc(), nullable=False),
        sa.Column("result", sa.String(), nullable=True),
        sa.Column("cpu", sa.Float(), nullable=False),
        sa.Column("memory", Int, nullable=False),
        sa.Column("gpu", sa.Float(), nullable=False),
        sa.Column("gpu_model", sa.String(), nullable=True),
        sa.Column("node_count", Int, nullable=False),
        sa.Column("resource_group", sa.String(), nullable=False),
        sa.Column("priority", Int, nullable=False),
        sa.Column("mounts", sa.JSON(), nullable=False),
        sa.Column("env", sa.JSON(), nullable=False),
        sa.Column("depends_on", sa.JSON(), nullable=False),
        sa.Column("start_at", Utc(), nullable=True),
        sa.Column("time_limit", sa.Float(), nullable=True),
        sa.Column("submitted", Utc(), nullable=False),
        sa.Column("started", Utc(), nullable=True),
        sa.Column("ended", Utc(), nullable=True),
        sa.Column("exit_code", Int, nullable=True),
        sa.Column("attempt", Int, nullable=False),
        sa.Column("grace", sa.Float(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("estimated_start", Utc(), nullable=True),
        sa.Column("utilization", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.create_index("sessions_by_name", ["name"], unique=False)
        batch_op.create_index("sessions_by_state", ["state"], unique=False)

    op.create_table(
        "tokens",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "users",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("email", sa.String(), nullable=True),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "members",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project"],
            ["projects.name"],
        ),
        sa.ForeignKeyConstraint(
            ["user"],
            ["users.name"],
        ),
        sa.PrimaryKeyConstraint("project", "user"),
    )
    op.create_table(
        "nodes",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("resource_group", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("lost_from", sa.String(), nullable=True),
        sa.Column("cpu", sa.Float(), nullable=False),
        sa.Column("memory", Int, nullable=False),
        sa.Column("gpu_model", sa.String(), nullable=True),
        sa.Column("devices", sa.JSON(), nullable=False),
        sa.Column("rack", sa.String(), nullable=True),
        sa.Column("isolation", sa.String(), nullable=False),
        sa.Column("same_host", sa.Boolean(), nullable=False),
        sa.Column("sample", sa.JSON(), nullable=False),
        sa.Column("last_beat", Utc(), nullable=True),
        sa.ForeignKeyConstraint(
            ["resource_group"],
            ["resource_groups.name"],
        ),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "allocations",
        sa.Column("session", sa.String(), nullable=False),
        sa.Column("rank", Int, nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("cpu", sa.Float(), nullable=False),
        sa.Column("memory", Int, nullable=False),
        sa.Column("devices", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("exit_code", Int, nullable=True),
        sa.ForeignKeyConstraint(
            ["node"],
            ["nodes.name"],
        ),
        sa.ForeignKeyConstraint(
            ["session"],
            ["sessions.id"],
        ),
        sa.PrimaryKeyConstraint("session", "rank"),
    )
    with op.batch_alter_table("allocations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_allocations_node"), ["node"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("allocations", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_allocations_node"))

    op.drop_table("allocations")
    op.drop_table("nodes")
    op.drop_table("members")
    op.drop_table("users")
    op.drop_table("tokens")
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.drop_index("sessions_by_state")
        batch_op.drop_index("sessions_by_name")

    op.drop_table("sessions")
    op.drop_table("resource_groups")
    op.drop_table("quotas")
    op.drop_table("projects")
    op.drop_table("meta")
    op.drop_table("images")
    op.drop_table("idempotency_keys")
    with op.batch_alter_table("folders", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_folders_name"))

    op.drop_table("folders")
    op.drop_table("events")
    op.drop_table("audit")
