"""LangChain's ``ChatOpenAI`` as it is, but for what it drops, mixes up or renames."""

from typing import Any

from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI

OPENAI_URL = "https://api.openai.com/v1"


class StockChatOpenAI(ChatOpenAI):
    def _convert_chunk_to_generation_chunk(
        self,
        chunk: dict[str, Any],
        default_chunk_class: type,
        base_generation_info: dict[str, Any] | None,
    ) -> ChatGenerationChunk | None:
        """Keeps the reasoning field of vLLM, DeepSeek and Qwen style servers, and refusals; passes
        over choices other than the first, which would be mixed into it."""
        choice = (chunk.get("choices") or [{}])[0]
        if choice.get("index"):
            return None
        if choice.get("finish_reason") and choice.get("delta") is None:
            choice["delta"] = {}
        generation = super()._convert_chunk_to_generation_chunk(
            chunk, default_chunk_class, base_generation_info
        )
        delta = choice.get("delta") or {}
        if generation is not None:
            for name, value in (
                ("reasoning_content", delta.get("reasoning_content") or delta.get("reasoning")),
                ("refusal", delta.get("refusal")),
            ):
                if value and isinstance(value, str):
                    generation.message.additional_kwargs[name] = value
        return generation

    def _get_request_payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """``max_tokens`` under its old name, which alone all compatible servers know."""
        payload = super()._get_request_payload(*args, **kwargs)
        if (self.openai_api_base or "").rstrip(
            "/"
        ) != OPENAI_URL and "max_completion_tokens" in payload:
            payload["max_tokens"] = payload.pop("max_completion_tokens")
        return payload
