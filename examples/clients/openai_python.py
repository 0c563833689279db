"""OpenAI's Python client: only base_url differs from a script for OpenAI's API."""

import asyncio
import io
import json
import os
import time

import openai
import pydantic

BASE_URL, MODEL = f"{os.environ['ESPALIER_URL']}/v1", os.environ["ESPALIER_MODEL"]
client = openai.OpenAI(base_url=BASE_URL, api_key="none")
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


class City(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)
    population: int = pydantic.Field(ge=0, le=10**8)


def chat():
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=16, temperature=0)
    return answer.choices[0].message.content


def stream():
    chunks = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=16, temperature=0, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def structured():
    answer = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=City, max_tokens=64, temperature=0)
    return answer.choices[0].message.parsed.name


def tools():
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=[WEATHER], tool_choice="required", max_tokens=96, temperature=0)
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls" and call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["unit"] in ("celsius", "fahrenheit")
    return call.function.arguments


def embeddings():
    first, second = client.embeddings.create(model=MODEL, input=["where is my card?", "how do I pay?"]).data
    assert len(first.embedding) == len(second.embedding)
    return len(first.embedding)


def upload():
    rows = [{"messages": [{"role": "user", "content": f"fruit {color}"}, {"role": "assistant", "content": fruit}]}
            for color, fruit in (("red", "apple"), ("green", "pear"), ("blue", "plum"))] * 8  # fmt: skip
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return client.files.create(file=("fruit.jsonl", io.BytesIO(content)), purpose="fine-tune")


def files():
    file = upload()
    assert client.files.retrieve(file.id).bytes == file.bytes
    return file.id


def fine_tuning():
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=upload().id, suffix="fruit", hyperparameters={"n_epochs": 8})
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(1)
        job = client.fine_tuning.jobs.retrieve(job.id)
    messages = [{"role": "user", "content": "fruit red"}]
    answer = client.chat.completions.create(model=job.fine_tuned_model, messages=messages, max_tokens=8, temperature=0)
    return answer.choices[0].message.content


def errors():
    try:
        client.chat.completions.create(model="nobody", messages=MESSAGES)
    except openai.NotFoundError as error:
        return error.code
    raise AssertionError("an unknown model is found")


def retry():
    """More requests than the server queues: it answers 503 with Retry-After, and the client sends them again."""
    patient = openai.AsyncOpenAI(base_url=BASE_URL, api_key="none", max_retries=20)
    ask = lambda: patient.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=32)
    answers = asyncio.run(gather([ask for _ in range(8)]))
    return len(answers)


async def gather(calls):
    return await asyncio.gather(*(call() for call in calls))


for feature in (chat, stream, structured, tools, embeddings, files, fine_tuning, errors, retry):
    print(f"{feature.__name__.replace('_', '-')}: {feature()!r}", flush=True)
