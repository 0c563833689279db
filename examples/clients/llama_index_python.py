"""LlamaIndex: OpenAILike and OpenAILikeEmbedding."""

import os
from typing import Literal

import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

SERVER = {"api_base": f"{os.environ['ESPALIER_URL']}/v1", "api_key": "none"}
MODEL = os.environ["ESPALIER_MODEL"]
model = OpenAILike(model=MODEL, **SERVER, is_chat_model=True, is_function_calling_model=True, context_window=2048, max_tokens=64, temperature=0)
MESSAGES = [ChatMessage(role="user", content="What is the weather in Paris?")]


def get_weather(unit: Literal["celsius", "fahrenheit"]) -> str:
    """Weather of the city."""
    return f"18 degrees {unit}"


def chat():
    return model.chat(MESSAGES).message.content


def stream():
    return "".join(chunk.delta or "" for chunk in model.stream_chat(MESSAGES))


def tools():
    tool = FunctionTool.from_defaults(get_weather)
    answer = model.chat_with_tools([tool], user_msg=MESSAGES[0], tool_required=True)
    (call,) = model.get_tool_calls_from_response(answer)
    return tool.call(**call.tool_kwargs).content


def embeddings():
    return len(OpenAILikeEmbedding(model_name=MODEL, **SERVER).get_text_embedding("where is my card?"))


def errors():
    try:
        OpenAILike(model="nobody", **SERVER, is_chat_model=True).chat(MESSAGES)
    except openai.NotFoundError as error:
        return error.code
    raise AssertionError("an unknown model is found")


for feature in (chat, stream, tools, embeddings, errors):
    print(f"{feature.__name__}: {feature()!r}", flush=True)
