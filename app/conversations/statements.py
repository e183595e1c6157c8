"""Every statement, made once; SQLAlchemy keeps what it compiles them to.

Parameters are called ``the_…``: a column's own name would be taken for a value to be set.
"""

from typing import Any

from sqlalchemy import (
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.conversations.schema import LOST, RUNNING, conversations, messages

_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_STORED = (
    "id",
    "conversation_id",
    "parent_id",
    "role",
    "status",
    "created_at",
    "run_id",
    "worker",
    "content",
)
_SHOWN = [messages.c[name] for name in _STORED if name != "worker"]


def _the(column: Any) -> Any:
    return bindparam(f"the_{column.name}", type_=column.type)


_OWNED = and_(
    conversations.c.id == _the(messages.c.conversation_id),
    conversations.c.owner == _the(conversations.c.owner),
)

# -- what callers see -----------------------------------------------------------------------

_by_use = tuple_(conversations.c.updated_at, conversations.c.id)
_first = (
    select(conversations)
    .where(conversations.c.owner == _the(conversations.c.owner))
    .order_by(conversations.c.updated_at.desc(), conversations.c.id.desc())
    .limit(bindparam("the_limit", type_=messages.c.seq.type))
)
FIRST_PAGE = _first
NEXT_PAGE = _first.where(_by_use < tuple_(_the(conversations.c.updated_at), _the(messages.c.id)))
CONVERSATION = select(conversations).where(_OWNED)
MESSAGES = (
    select(*_SHOWN)
    .where(messages.c.conversation_id == _the(messages.c.conversation_id))
    .order_by(messages.c.seq)
)
RENAME = update(conversations).where(_OWNED).values(title=_the(conversations.c.title))
DELETE = delete(conversations).where(_OWNED)  # its messages go with it


def _branch() -> Any:
    """By parent links, up from the leaf; the texts are fetched only of those that are wanted."""
    leaf = func.coalesce(_the(conversations.c.leaf_id), conversations.c.leaf_id)
    branch = (
        select(messages.c.id, messages.c.parent_id, literal(1).label("depth"))
        .join(conversations, conversations.c.id == messages.c.conversation_id)
        .where(_OWNED, messages.c.id == leaf)
        .cte("branch", recursive=True)
    )
    parent = messages.alias("parent")
    branch = branch.union_all(
        select(parent.c.id, parent.c.parent_id, branch.c.depth + 1)
        .join(branch, parent.c.id == branch.c.parent_id)
        .where(
            branch.c.depth < bindparam("the_newest", type_=messages.c.seq.type),
            parent.c.conversation_id == _the(messages.c.conversation_id),
        )
    )
    return (
        select(*_SHOWN).join(branch, branch.c.id == messages.c.id).order_by(branch.c.depth.desc())
    )


BRANCH = _branch()

# -- what runs write ------------------------------------------------------------------------

# The leaf is always a message of the same write: if it is there, all this was stored before, and
# another question may have moved the leaf since.
CONTINUE = (
    update(conversations)
    .where(_OWNED, ~exists().where(messages.c.id == _the(conversations.c.leaf_id)))
    .values(updated_at=_the(conversations.c.updated_at), leaf_id=_the(conversations.c.leaf_id))
)
_answer = (
    update(messages)
    .where(
        messages.c.id == _the(messages.c.id),
        messages.c.conversation_id == _the(messages.c.conversation_id),
    )
    .values(status=_the(messages.c.status), content=_the(messages.c.content))
)
ANSWER = _answer.where(messages.c.worker.is_distinct_from(LOST)).values(worker=None)
# ``ABANDON`` may have come before.
ANSWER_LOST = _answer.where(or_(RUNNING, messages.c.status == "failed")).values(worker=LOST)


def begin(dialect: str) -> Any:
    """A conversation that is new, unless it was stored before."""
    new = _INSERT[dialect](conversations)
    return new.on_conflict_do_update(
        index_elements=["id"],
        set_={"updated_at": new.excluded.updated_at, "leaf_id": new.excluded.leaf_id},
        where=and_(
            conversations.c.owner == new.excluded.owner,
            ~exists().where(messages.c.id == literal_column("excluded.leaf_id")),
        ),
    )


def ask(dialect: str) -> Any:
    """A message, if its conversation is there and it is not."""
    values = select(*[_the(messages.c[name]) for name in _STORED]).where(exists().where(_OWNED))
    return (
        _INSERT[dialect](messages)
        .from_select(list(_STORED), values)
        .on_conflict_do_nothing(index_elements=["id"])
    )


# -- runs whose gateway is gone -------------------------------------------------------------

WORKERS = select(messages.c.worker).where(RUNNING).distinct()
ABANDON = (
    update(messages)
    .where(RUNNING, messages.c.worker.in_(bindparam("the_workers", expanding=True)))
    .values(status="failed", worker=None)
)
