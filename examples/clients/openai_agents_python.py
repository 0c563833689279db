"""OpenAI's Agents SDK: an agent over /v1/responses, which is its default."""

import asyncio
import os
from typing import Literal

import openai
import pydantic
from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled

set_tracing_disabled(True)
client = openai.AsyncOpenAI(base_url=f"{os.environ['ESPALIER_URL']}/v1", api_key="none")
model = OpenAIResponsesModel(model=os.environ["ESPALIER_MODEL"], openai_client=client)
QUESTION = "What is the capital of France?"


class Weather(pydantic.BaseModel):
    sky: Literal["clear", "cloudy", "rain"]
    degrees: int = pydantic.Field(ge=-50, le=50)


@function_tool
def get_weather(unit: Literal["celsius", "fahrenheit"]) -> str:
    """Weather of the city."""
    return f"18 degrees {unit}"


def agent(**options):
    settings = ModelSettings(max_tokens=48, temperature=0, tool_choice=options.pop("tool_choice", None))
    return Agent(name="Assistant", instructions="Answer in one sentence.", model=model, model_settings=settings, **options)


def chat():
    return Runner.run_sync(agent(), QUESTION).final_output


def stream():
    async def text():
        events = Runner.run_streamed(agent(), QUESTION).stream_events()
        return "".join([event.data.delta async for event in events if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"])

    return asyncio.run(text())


def structured():
    return Runner.run_sync(agent(output_type=Weather), QUESTION).final_output


def tools():
    answer = Runner.run_sync(agent(tools=[get_weather], tool_choice="required", tool_use_behavior="stop_on_first_tool"), QUESTION)
    return answer.final_output


def errors():
    try:
        missing = OpenAIResponsesModel(model="nobody", openai_client=client)
        Runner.run_sync(Agent(name="Assistant", model=missing), QUESTION)
    except openai.NotFoundError as error:
        return error.code
    raise AssertionError("an unknown model is found")


for feature in (chat, stream, structured, tools, errors):
    print(f"{feature.__name__}: {feature()!r}", flush=True)
