"""LangChain: ChatOpenAI and OpenAIEmbeddings with another base URL."""

import os
from typing import Literal

import openai
import pydantic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

BASE_URL, MODEL = f"{os.environ['ESPALIER_URL']}/v1", os.environ["ESPALIER_MODEL"]
model = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key="none", temperature=0, max_tokens=96)
QUESTION = "What is the capital of France?"


class City(pydantic.BaseModel):
    """A city."""

    name: str = pydantic.Field(max_length=20)
    continent: Literal["Africa", "America", "Asia", "Europe", "Oceania"]


@tool
def get_weather(city: str, unit: Literal["celsius", "fahrenheit"]) -> str:
    """Weather of a city."""
    return f"18 degrees {unit} in {city}"


def chat():
    return model.invoke([("system", "Answer in one word."), ("user", QUESTION)]).content


def stream():
    return "".join(chunk.content for chunk in model.stream(QUESTION, max_tokens=16))


def structured():
    return model.with_structured_output(City, method="json_schema").invoke(QUESTION).continent


def tools():
    (call,) = model.bind_tools([get_weather], tool_choice="required").invoke(QUESTION).tool_calls
    return get_weather.invoke(call["args"])


def embeddings():
    # Texts are sent as they are; by default the client sends the token ids of an OpenAI model.
    embedder = OpenAIEmbeddings(model=MODEL, base_url=BASE_URL, api_key="none", check_embedding_ctx_length=False)
    return len(embedder.embed_query(QUESTION))


def errors():
    try:
        ChatOpenAI(model="nobody", base_url=BASE_URL, api_key="none").invoke(QUESTION)
    except openai.NotFoundError as error:
        return error.code
    raise AssertionError("an unknown model is found")


def retry():
    """More requests than the server queues: it answers 503 with Retry-After, and the client sends them again."""
    patient = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key="none", max_tokens=32, max_retries=20)
    return len(patient.batch([QUESTION] * 8, config={"max_concurrency": 8}))


for feature in (chat, stream, structured, tools, embeddings, errors, retry):
    print(f"{feature.__name__}: {feature()!r}", flush=True)
