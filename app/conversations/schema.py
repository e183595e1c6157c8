"""The tables. A change here needs a revision in ``migrations/versions`` and its name in ``HEAD``.

Text from people and models is ASCII JSON: PostgreSQL's text holds no NUL.
"""

import json

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.engine import Dialect

HEAD = "0001"
# A literal, not a parameter: SQLite takes the partial index only where it sees the same words.
RUNNING = text("status = 'running'")
# Worker of an answer that another one stored, because its own one was thought dead. No worker has
# such a short name.
LOST = "lost"


class AsciiJson(TypeDecorator[str]):
    """A string as a JSON literal."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002  the signature is SQLAlchemy's
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002  the signature is SQLAlchemy's
        return None if value is None else str(json.loads(value))


metadata = MetaData()

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", AsciiJson, nullable=False),
    Column("title", AsciiJson, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("leaf_id", Text, nullable=False),
    Index("conversations_by_use", "owner", "updated_at", "id"),
)

messages = Table(
    "messages",
    metadata,
    # Grows, so that parents stand before children and older siblings before younger ones.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column(
        "conversation_id",
        Text,
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("parent_id", Text),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("run_id", Text, nullable=False),
    # Whose run it is, while it runs: see ``workers``. ``LOST``: nobody's, whoever comes.
    Column("worker", Text),
    Column("content", Text, nullable=False),
    Index("messages_in_order", "conversation_id", "seq"),
    Index("messages_running", "worker", sqlite_where=RUNNING, postgresql_where=RUNNING),
)
