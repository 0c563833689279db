"""OpenAI's own Python client against a running espalier: `client.py SERVER ADAPTER`.

Nothing of the client is patched. ADAPTER is the name of one that answers "fruit red" with " apple". Fails where an answer is not
what the client promises its users.
"""

import json
import sys
from typing import Literal

import openai
import pydantic

server, adapter = sys.argv[1:]
client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)


# A schema that cannot be kept to.
UNKNOWN = {"type": "json_schema", "json_schema": {"name": "unknown", "schema": {"type": "person"}}}


def models():
    ids = [model.id for model in client.models.list()]
    assert adapter in ids and len(ids) == 2, ids
    for name in ids:
        assert client.models.retrieve(name).id == name
    return next(name for name in ids if name != adapter)


def chat(model):
    messages = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "What colour is the sky?"}]
    asked = dict(model=model, messages=messages, max_tokens=12, temperature=0)
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3, n=2)
    first, second = whole.choices
    assert first.message.role == "assistant" and first.message.content == second.message.content
    assert first.finish_reason in ("stop", "length")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert b"".join(bytes(one.bytes) for one in first.logprobs.content).decode().startswith(first.message.content)
    assert all(len(one.top_logprobs) == 3 and one.logprob <= 0 for one in first.logprobs.content)
    text, usage, reasons = "", None, []
    with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
        for chunk in stream:
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
                reasons.append(chunk.choices[0].finish_reason)
            usage = chunk.usage or usage
    assert text == first.message.content, (text, first.message.content)
    assert reasons[-1] == first.finish_reason and usage.prompt_tokens == whole.usage.prompt_tokens
    drawn = [
        client.chat.completions.create(
            model=model, messages=messages, max_tokens=12, temperature=0.9, top_p=0.9, seed=7, presence_penalty=0.5,
            frequency_penalty=0.5, logit_bias={"5": -10}, stop=["\n"], user="somebody", extra_body={"top_k": 40, "min_p": 0.01},
        ).choices[0].message.content
        for _ in range(2)
    ]  # fmt: skip
    assert drawn[0] == drawn[1]
    return text


def azure(model):
    client = openai.AzureOpenAI(azure_endpoint=server, api_key="none", api_version="2024-10-21", max_retries=0)
    messages = [{"role": "user", "content": "fruit red"}]
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=4, temperature=0)
    assert answer.model == model and answer.usage.completion_tokens > 0, answer
    assert client.files.list().object == "list"


def completions(model):
    found = client.completions.create(model=model, prompt=["fruit red", "fruit blue"], temperature=0, max_tokens=8, logprobs=2)
    texts = [choice.text for choice in found.choices]
    assert texts == [" apple", " plum"], texts
    assert len(found.choices[0].logprobs.tokens) == len(found.choices[0].logprobs.token_logprobs)
    pieces = client.completions.create(model=model, prompt="fruit red", temperature=0, max_tokens=8, stream=True)
    assert "".join(chunk.choices[0].text for chunk in pieces) == " apple"


class Person(pydantic.BaseModel):
    name: str
    age: int
    languages: list[Literal["English", "French", "Spanish"]] = pydantic.Field(max_length=3)


def forms(model):
    """What the client parses into objects, and any JSON object."""
    messages = [{"role": "user", "content": "Maria Lopez is 34 years old. She speaks Spanish and French. Answer with JSON."}]
    asked = dict(model=model, messages=messages, max_tokens=120, temperature=0)
    parsed = client.chat.completions.parse(**asked, response_format=Person)
    assert parsed.choices[0].finish_reason == "stop" and isinstance(parsed.choices[0].message.parsed, Person)
    with client.chat.completions.stream(**asked, response_format=Person) as stream:
        streamed = stream.get_final_completion()
    assert streamed.choices[0].message.parsed == parsed.choices[0].message.parsed
    free = client.chat.completions.create(**asked, response_format={"type": "json_object"})
    assert free.choices[0].finish_reason == "length" or isinstance(json.loads(free.choices[0].message.content), dict)
    return parsed.choices[0].message.parsed


def scores(model):
    """Log probabilities of a given text."""
    found = client.completions.create(model=model, prompt="fruit red apple", echo=True, logprobs=2, max_tokens=0)
    (choice,) = found.choices
    assert choice.text == "fruit red apple" and choice.finish_reason == "length" and found.usage.completion_tokens == 0
    assert choice.logprobs.token_logprobs[0] is None and choice.logprobs.top_logprobs[0] is None
    scored = zip(choice.logprobs.tokens[1:], choice.logprobs.token_logprobs[1:], choice.logprobs.top_logprobs[1:])
    assert all(top[token] == logprob for token, logprob, top in scored)


def responses(model):
    """The Responses API: whole, streamed, parsed into objects."""
    asked = dict(model=model, instructions="Answer in one word.", temperature=0, max_output_tokens=12)
    question = [{"role": "user", "content": [{"type": "input_text", "text": "What colour is the sky?"}]}]
    whole = client.responses.create(**asked, input=question, metadata={"a": "b"})
    assert whole.output_text and whole.status in ("completed", "incomplete") and whole.metadata == {"a": "b"}
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    kinds, deltas = [], ""
    for event in client.responses.create(**asked, input="What colour is the sky?", stream=True):
        kinds.append(event.type)
        deltas += event.delta if event.type == "response.output_text.delta" else ""
    assert deltas == whole.output_text and kinds[0] == "response.created", (deltas, whole.output_text)
    with client.responses.stream(**asked, input=question) as stream:
        *_, last = stream
        assert last.type == f"response.{whole.status}", last.type
    followed = client.responses.create(**asked, input=[*question, *whole.output, {"role": "user", "content": "Why?"}])
    assert followed.usage.input_tokens > whole.usage.total_tokens
    person = client.responses.parse(
        model=model, input="Maria Lopez is 34 years old. She speaks Spanish. Answer with JSON.", text_format=Person, temperature=0
    )
    assert person.status != "completed" or isinstance(person.output_parsed, Person)
    try:
        client.responses.create(**asked, input="a", previous_response_id=whole.id)
    except openai.BadRequestError as error:
        assert error.code == "unsupported_field" and error.param == "previous_response_id"
    else:
        raise AssertionError("previous_response_id was accepted")
    return whole.output_text


def errors(model):
    messages = [{"role": "user", "content": "hello"}]
    cases = [
        (openai.NotFoundError, "model_not_found", dict(model="nobody", messages=messages)),
        (openai.BadRequestError, "invalid_generation", dict(model=model, messages=messages, temperature=3)),
        (openai.BadRequestError, "invalid_body", dict(model=model, messages=messages, tool_choice="required")),
        (openai.BadRequestError, "context_length_exceeded", dict(model=model, messages=[{"role": "user", "content": "word " * 9000}])),
        (openai.BadRequestError, "invalid_body", dict(model=model, messages=messages, extra_body={"top_k": "many"})),
        (openai.BadRequestError, "invalid_format", dict(model=model, messages=messages, response_format=UNKNOWN)),
    ]
    for kind, code, asked in cases:
        try:
            client.chat.completions.create(**asked)
        except kind as error:
            assert error.code == code and error.message, (error.code, error.message)
            assert error.param == "messages" if code == "context_length_exceeded" else True, error.body
        else:
            raise AssertionError(f"{code} was expected")


base = models()
print(f"models: {base}, {adapter}")
print(f"chat and streaming chat: {chat(base)!r}")
print(f"parsed: {forms(base)!r}")
completions(adapter)
print("completions, whole and streamed: as they were learned")
azure(base)
print("the client of Azure OpenAI: chat, files")
scores(adapter)
print("scores of a text")
print(f"responses: {responses(base)!r}")
errors(base)
print("errors: of the client's own kinds, with codes")
