"""Where the graph's state is kept: in the same file as the conversations, read back by a strict serializer."""

import sqlite3
from pathlib import Path

import aiosqlite
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from helmsman.errors import unkept


async def open_saver(path: Path) -> AsyncSqliteSaver:
    """A checkpointer on `path`. Whatever the file holds, reading it constructs LangGraph's own plain types only."""
    serializer = JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=None, allowed_json_modules=None)
    connection: aiosqlite.Connection | None = None
    try:
        connection = await aiosqlite.connect(path, timeout=5)
        await connection.execute("PRAGMA synchronous = NORMAL")
        saver = AsyncSqliteSaver(connection, serde=serializer)
        await saver.setup()
    except (OSError, sqlite3.Error) as e:
        if connection:
            await connection.close()
        raise unkept(path, e) from e
    return saver


async def prune(saver: AsyncSqliteSaver, thread: str) -> None:
    """Forget all but the newest checkpoint of a thread: earlier ones are never gone back to."""
    async with saver.lock:
        for table in ("checkpoints", "writes"):
            await saver.conn.execute(
                f"DELETE FROM {table} WHERE thread_id = ?1 AND checkpoint_id < "
                "(SELECT MAX(checkpoint_id) FROM checkpoints WHERE thread_id = ?1)",
                (thread,),
            )
        await saver.conn.commit()
