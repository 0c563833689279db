"""Tools with OpenAI's own Python client against a running espalier: `tools.py SERVER MODEL [REQUESTS]`.

MODEL is a base without a place for tools in its chat template. Sends REQUESTS (200) requests with a required tool and checks the arguments
of every call against its JSON schema; then a forced function, a stream, and a turn with the result of a call.
"""

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import openai

server, model = sys.argv[1:3]
count = int(sys.argv[3]) if len(sys.argv) > 3 else 200
client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0, timeout=600)


def function(name, description, properties, required, **schema):
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False, **schema}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


SHORT = {"type": "string", "maxLength": 24}
TOOLS = [
    function(
        "get_weather",
        "Weather of a city",
        {"city": SHORT, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}, "days": {"type": "integer", "minimum": 1, "maximum": 14}},
        ["city", "unit"],
    ),
    function(
        "book_table",
        "Book a table in a restaurant",
        {
            "guest": {"$ref": "#/$defs/guest"},
            "seats": {"type": "integer", "minimum": 1, "maximum": 12},
            "outdoor": {"type": ["boolean", "null"]},
        },
        ["guest", "seats"],
        **{"$defs": {"guest": {"type": "object", "properties": {"name": SHORT}, "required": ["name"], "additionalProperties": False}}},
    ),
    function(
        "order",
        "Order drinks",
        {
            "items": {
                "type": "array",
                "minItems": 1,
                "maxItems": 3,
                "items": {
                    "type": "object",
                    "properties": {"drink": {"enum": ["tea", "coffee", "water"]}, "price": {"type": "number", "minimum": 0, "maximum": 99}},
                    "required": ["drink", "price"],
                    "additionalProperties": False,
                },
            }
        },
        ["items"],
    ),
    function(
        "set_alarm",
        "Set an alarm",
        {"time": {"type": "string", "pattern": "^[0-2][0-9]:[0-5][0-9]$"}, "repeat": {"anyOf": [{"type": "boolean"}, {"enum": ["daily", "weekly"]}]}},
        ["time"],
    ),
    function("get_time", "Time of the day", {}, []),
]
QUESTIONS = [
    "What is the weather in Ulm?",
    "Book a table for four people, my name is Ada Lovelace.",
    "Two coffees and a tea, please.",
    "Wake me at half past six.",
    "How late is it?",
    "Hello!",
]
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}


def check(call):
    """Name of the function, whose arguments are valid."""
    name = call.function.name
    jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[name])
    return name


def required(index):
    # One to all of the tools, starting at another one each time.
    offered = (TOOLS[index % len(TOOLS) :] + TOOLS)[: 1 + index % len(TOOLS)]
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTIONS[index % len(QUESTIONS)]}],
        tools=offered,
        tool_choice="required",
        parallel_tool_calls=index % 2 == 1,
        max_tokens=400,
        temperature=(index % 4) * 0.4,
        seed=index,
    )
    choice = answer.choices[0]
    calls = choice.message.tool_calls or []
    allowed = {tool["function"]["name"] for tool in offered}
    assert calls and all(call.function.name in allowed for call in calls), choice
    assert len(calls) <= (len(offered) if index % 2 else 1), choice
    if choice.finish_reason == "length":
        # The last call may be cut off.
        calls = calls[:-1]
    else:
        assert choice.finish_reason == "tool_calls", choice
    return [check(call) for call in calls], choice.finish_reason


def forced():
    choice = {"type": "function", "function": {"name": "get_weather"}}
    asked = dict(model=model, messages=[{"role": "user", "content": QUESTIONS[0]}], tools=TOOLS, tool_choice=choice, max_tokens=100, temperature=0)
    whole = client.chat.completions.create(**asked).choices[0].message
    with client.chat.completions.stream(**asked) as stream:
        kinds = Counter(event.type for event in stream)
        streamed = stream.get_final_completion().choices[0]
    assert check(whole.tool_calls[0]) == "get_weather" and streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls[0].function.arguments == whole.tool_calls[0].function.arguments
    assert kinds["tool_calls.function.arguments.delta"] > 3, kinds
    result = {"role": "tool", "tool_call_id": whole.tool_calls[0].id, "content": "Sunny, 21 degrees."}
    turn = [*asked["messages"], whole.model_dump(), result]
    answer = client.chat.completions.create(model=model, messages=turn, max_tokens=40, temperature=0)
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls
    return whole.tool_calls[0].function.arguments, answer.choices[0].message.content


def refused():
    for fields in [{"tool_choice": "auto"}, {}]:
        try:
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": "a"}], tools=TOOLS, **fields)
        except openai.BadRequestError as error:
            assert error.code == "unsupported_field" and error.param == "tools", error
        else:
            raise AssertionError("the template has no place for tools")


refused()
print("optional tools: refused by name, the template has no place for them")
arguments, said = forced()
print(f"forced, whole and streamed: {arguments}; after the result: {said!r}")
with ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(required, range(count)))
names = Counter(name for calls, _ in answers for name in calls)
reasons = Counter(reason for _, reason in answers)
valid = sum(1 for calls, _ in answers if calls)
assert valid == count, (valid, answers)
print(f"required: {valid} of {count} requests with valid arguments, {sum(names.values())} calls {dict(names)}, {dict(reasons)}")
