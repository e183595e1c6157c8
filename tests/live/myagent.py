"""An agent as a user would write one with LangGraph, for a gateway that runs in this file's copy's
folder. Its model's address stands in the file ``upstream`` there."""

from pathlib import Path
from typing import Any

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


@tool
async def double(number: int) -> str:
    """Twice the number."""
    return str(2 * number)


@tool
def fail() -> str:
    """Fails."""
    raise ValueError("SECRET-OF-THE-TOOL")


TOOLS = [double, fail]
model = ChatOpenAI(
    model="simulator",
    base_url=Path("upstream").read_text().strip(),
    api_key="none",  # type: ignore[arg-type]  # pydantic makes it a secret
    max_retries=0,
    stream_usage=True,
).bind_tools(TOOLS)


async def think(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await model.ainvoke(state["messages"])]}


graph: Any = StateGraph(MessagesState)
graph.add_node("think", think)
graph.add_node("tools", ToolNode(TOOLS, handle_tool_errors="the tool failed"))
graph.add_edge(START, "think")
graph.add_conditional_edges("think", tools_condition)
graph.add_edge("tools", "think")
agent = graph.compile()
no_agent = "this is no Runnable"
