"""LangServe's routes over ``ChatOpenAI``, whose model a request names. Runs in an environment of
its own."""

from fastapi import FastAPI
from langchain_core.runnables import ConfigurableField
from langchain_openai import ChatOpenAI
from langserve import add_routes  # type: ignore[import-not-found]

app = FastAPI()
model = ChatOpenAI(model="sim-n16-i0", streaming=True, max_retries=0)
add_routes(
    app, model.configurable_fields(model_name=ConfigurableField(id="sim_model")), path="/chat"
)
