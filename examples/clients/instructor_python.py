"""Instructor: objects from a schema in the response format, or as the arguments of a required tool."""

import os
from typing import Literal

import instructor
import openai
import pydantic

BASE_URL, MODEL = f"{os.environ['ESPALIER_URL']}/v1", os.environ["ESPALIER_MODEL"]
MESSAGES = [{"role": "user", "content": "My card did not arrive. It was posted two weeks ago."}]


class Ticket(pydantic.BaseModel):
    topic: Literal["card", "payment", "account"]
    urgent: bool


def create(mode):
    client = instructor.from_openai(openai.OpenAI(base_url=BASE_URL, api_key="none"), mode=mode)
    return client.chat.completions.create(model=MODEL, messages=MESSAGES, response_model=Ticket, max_tokens=200, temperature=0, max_retries=0)


def structured():
    return create(instructor.Mode.JSON_SCHEMA)


def tools():
    return create(instructor.Mode.TOOLS)


for feature in (structured, tools):
    print(f"{feature.__name__}: {feature()!r}", flush=True)
