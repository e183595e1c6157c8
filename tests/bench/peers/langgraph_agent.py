"""LangGraph's server with one node that asks ``ChatOpenAI``. Runs in an environment of its own."""

from functools import lru_cache
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph


@lru_cache(maxsize=64)
def model_named(name: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, streaming=True, max_retries=0)


async def call(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
    model = model_named(config["configurable"]["sim_model"])
    return {"messages": [await model.ainvoke(state["messages"], config)]}


builder = StateGraph(MessagesState).add_node("call", call)
graph = builder.add_edge(START, "call").add_edge("call", END).compile()
