"""Pydantic AI: an agent whose answers are objects."""

import asyncio
import os
from typing import Literal

import pydantic
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=f"{os.environ['ESPALIER_URL']}/v1", api_key="none")
model = OpenAIChatModel(os.environ["ESPALIER_MODEL"], provider=provider)
SETTINGS = {"max_tokens": 64, "temperature": 0}
QUESTION = "My card did not arrive. It was posted two weeks ago."


class Ticket(pydantic.BaseModel):
    topic: Literal["card", "payment", "account"]
    urgent: bool


def chat():
    return Agent(model, instructions="Answer in one sentence.").run_sync(QUESTION, model_settings={"max_tokens": 16}).output


def stream():
    async def text():
        async with Agent(model).run_stream(QUESTION, model_settings={"max_tokens": 16}) as answer:
            return "".join([piece async for piece in answer.stream_text(delta=True)])

    return asyncio.run(text())


def structured():
    return Agent(model, output_type=NativeOutput(Ticket)).run_sync(QUESTION, model_settings=SETTINGS).output


def tools():
    return Agent(model, output_type=ToolOutput(Ticket)).run_sync(QUESTION, model_settings=SETTINGS).output


def errors():
    try:
        Agent(OpenAIChatModel("nobody", provider=provider)).run_sync(QUESTION)
    except ModelHTTPError as error:
        return error.status_code
    raise AssertionError("an unknown model is found")


for feature in (chat, stream, structured, tools, errors):
    print(f"{feature.__name__}: {feature()!r}", flush=True)
