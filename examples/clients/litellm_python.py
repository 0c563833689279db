"""LiteLLM: the provider `openai/` with another base URL."""

import json
import os

import litellm
import pydantic

BASE_URL, MODEL = f"{os.environ['ESPALIER_URL']}/v1", f"openai/{os.environ['ESPALIER_MODEL']}"
SERVER = {"model": MODEL, "api_base": BASE_URL, "api_key": "none"}
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}}, "required": ["unit"]},
    },
}


class City(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)


def chat():
    return litellm.completion(**SERVER, messages=MESSAGES, max_tokens=16, temperature=0).choices[0].message.content


def stream():
    chunks = litellm.completion(**SERVER, messages=MESSAGES, max_tokens=16, temperature=0, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def structured():
    answer = litellm.completion(**SERVER, messages=MESSAGES, max_tokens=64, temperature=0, response_format=City)
    return City.model_validate_json(answer.choices[0].message.content).name


def tools():
    answer = litellm.completion(**SERVER, messages=MESSAGES, max_tokens=64, temperature=0, tools=[WEATHER], tool_choice="required")
    (call,) = answer.choices[0].message.tool_calls
    return json.loads(call.function.arguments)["unit"]


def embeddings():
    return len(litellm.embedding(**SERVER, input=["where is my card?"]).data[0]["embedding"])


def errors():
    try:
        litellm.completion(**{**SERVER, "model": "openai/nobody"}, messages=MESSAGES)
    except litellm.NotFoundError as error:
        return error.status_code
    raise AssertionError("an unknown model is found")


for feature in (chat, stream, structured, tools, embeddings, errors):
    print(f"{feature.__name__}: {feature()!r}", flush=True)
