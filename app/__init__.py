"""A server-sent events gateway for LLM chat.

The way of a token::

    api/   request ──► runs/  a task owned by the application ──► llm/  LangChain, callback handler
                                                                    │ queue
    wire/  frames ◄── events/  one append-only log per run  ◄───────┘
      │                 └── any number of readers, each only a cursor
      └──► EventSourceResponse ──► EventSource, fetch, curl -N, SDKs

One log, no queue per reader: replay and live are the same read, and the writer never waits. With
Redis the log is copied there as it grows, and readers on other workers read a copy of it.
"""

__version__ = "0.1.0"
