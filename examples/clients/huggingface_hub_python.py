"""huggingface_hub's InferenceClient: chat completions, and embeddings as Text Embeddings Inference serves them."""

import json
import os

from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

URL, MODEL = os.environ["ESPALIER_URL"], os.environ["ESPALIER_MODEL"]
client = InferenceClient(base_url=f"{URL}/v1", api_key="none")
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
SCHEMA = {"type": "object", "properties": {"continent": {"enum": ["Africa", "Asia", "Europe"]}}, "required": ["continent"]}
TOOL = {"type": "function", "function": {"name": "locate", "description": "Locates a city", "parameters": SCHEMA}}


def chat():
    return client.chat_completion(MESSAGES, model=MODEL, max_tokens=16, temperature=0).choices[0].message.content


def stream():
    chunks = client.chat_completion(MESSAGES, model=MODEL, max_tokens=16, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def structured():
    response_format = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
    answer = client.chat_completion(MESSAGES, model=MODEL, max_tokens=48, response_format=response_format)
    return json.loads(answer.choices[0].message.content)["continent"]


def tools():
    answer = client.chat_completion(MESSAGES, model=MODEL, max_tokens=48, tools=[TOOL], tool_choice="required")
    (call,) = answer.choices[0].message.tool_calls
    return json.loads(call.function.arguments)["continent"]


def embeddings():
    return InferenceClient(model=f"{URL}/embed").feature_extraction("where is my card?").shape


def errors():
    try:
        client.chat_completion(MESSAGES, model="nobody")
    except HfHubHTTPError as error:
        return error.response.status_code
    raise AssertionError("an unknown model is found")


for feature in (chat, stream, structured, tools, embeddings, errors):
    print(f"{feature.__name__}: {feature()!r}", flush=True)
