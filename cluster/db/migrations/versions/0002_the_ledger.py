"""the ledger: preemption, past use, racks, accelerators, borrowing; live sessions are found by their missing end

Revision: 0002, after: 0001
"""

import sqlalchemy as sa
from alembic import op

from cluster.db.tables import Int, Utc

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("user"),
    )
    op.add_column("sessions", sa.Column("requeue", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("sessions", sa.Column("preemptible", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("sessions", sa.Column("rack", sa.String(), nullable=True))
    op.add_column("sessions", sa.Column("accelerator", sa.String(), nullable=True))
    op.drop_index("sessions_by_state", table_name="sessions")
    op.create_index("sessions_by_end", "sessions", ["ended"])
    op.drop_index("ix_allocations_node", table_name="allocations")
    op.add_column("nodes", sa.Column("address", sa.String(), nullable=True))
    op.add_column("projects", sa.Column("cohort", sa.String(), nullable=True))
    op.add_column("quotas", sa.Column("borrow_cpu", sa.Float(), nullable=True))
    op.add_column("quotas", sa.Column("borrow_memory", Int, nullable=True))
    op.add_column("quotas", sa.Column("borrow_gpu", sa.Float(), nullable=True))


def downgrade() -> None:
    for column in ("borrow_gpu", "borrow_memory", "borrow_cpu"):
        op.drop_column("quotas", column)
    op.drop_column("projects", "cohort")
    op.create_index("ix_allocations_node", "allocations", ["node"])
    op.drop_column("nodes", "address")
    op.drop_index("sessions_by_end", table_name="sessions")
    op.create_index("sessions_by_state", "sessions", ["state"])
    for column in ("accelerator", "rack", "preemptible", "requeue"):
        op.drop_column("sessions", column)
    op.drop_table("usage")
