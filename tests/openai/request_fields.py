"""Every field of the request types of the `openai` package against a running espalier: `request_fields.py SERVER EXPECTED [--update]`.

The package's types give the fields, those of nested objects too, and values for each of them. A request with one such value is answered, with the
field done or named in `x-ignored-fields`, or refused with the field's name in `param`: never an error of the server, and never an error about
another field. Null and the neutral value of every field are accepted. EXPECTED is a table of what happens, which --update writes.
"""

import json
import pathlib
import re
import sys
import typing
import urllib.error
import urllib.request

import openai
import typing_extensions
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.fine_tuning import job_create_params
from openai.types.responses import response_create_params

server, expected_file, *flags = sys.argv[1:]
MAX_DEPTH = 6
MESSAGES = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "boolean"}}}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}

# Values that a type alone does not give: by the end of a field's path.
VALUES = {
    "max_tokens": [1], "max_completion_tokens": [1], "max_output_tokens": [16], "n": [1, 2], "best_of": [1], "top_logprobs": [2],
    "seed": [7], "temperature": [0.5], "top_p": [0.5], "frequency_penalty": [0.5], "presence_penalty": [0.5], "logit_bias": [{"5": -10}],
    "stop": ["x", ["x", "y"]], "schema": [SCHEMA], "parameters": [SCHEMA], "arguments": ['{"a": true}'], "metadata": [{"a": "b"}], "user": ["u"],
    "dimensions": [16], "encoding_format": ["float", "base64"], "suffix": ["x"],
}  # fmt: skip
# Fields that are checked otherwise: they have a right value in every request here.
OTHERWISE = {"model", "training_file", "validation_file"}
# Fields whose value needs another field.
NEEDS = {
    "top_logprobs": {"logprobs": True}, "stream_options": {"stream": True}, "tool_choice": {"tools": [TOOL]}, "parallel_tool_calls": {"tools": [TOOL], "tool_choice": "required"},
}  # fmt: skip
# Fields that an error about another field may name.
COUPLED = {"method": ["training_file"]}
# Values that ask for what is done without the field. Others are neutral as null alone.
NEUTRAL = {
    "chat/completions": {
        "frequency_penalty": 0, "function_call": "none", "functions": [], "logit_bias": {}, "logprobs": False, "max_completion_tokens": -1,
        "max_tokens": -1, "metadata": {}, "modalities": ["text"], "n": 1.0, "parallel_tool_calls": True, "presence_penalty": 0, "prompt_cache_key": "k",
        "response_format": {"type": "text"}, "safety_identifier": "s", "seed": -1, "service_tier": "auto", "stop": [], "store": False, "stream": False,
        "temperature": 1, "tool_choice": "none", "tools": [], "top_p": 1, "user": "u", "verbosity": "medium",
    },
    "completions": {
        "best_of": 1, "echo": False, "frequency_penalty": 0, "logit_bias": {}, "max_tokens": 1.0, "n": 1, "presence_penalty": 0, "seed": -1,
        "stop": [], "stream": False, "suffix": "", "temperature": 1, "top_p": 1, "user": "u",
    },
    "embeddings": {"encoding_format": "float", "user": "u"},
    "responses": {
        "background": False, "include": [], "max_output_tokens": 16.0, "metadata": {}, "parallel_tool_calls": True, "service_tier": "auto", "store": False,
        "stream": False, "temperature": 1, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1, "truncation": "disabled",
        "user": "u", "reasoning": {}, "top_logprobs": 0,
    },
    "fine_tuning/jobs": {"metadata": {}, "seed": 7, "integrations": [], "hyperparameters": {"n_epochs": "auto"}},
}  # fmt: skip


def is_typed_dict(kind):
    return hasattr(kind, "__required_keys__")


def type_hints(kind):
    return typing_extensions.get_type_hints(kind, include_extras=True)


def unwrapped(kind):
    """The type without Required[…] and Annotated[…]."""
    while typing.get_origin(kind) in (typing.Required, typing.NotRequired, typing.Annotated) or "Required" in str(typing.get_origin(kind)):
        kind = typing.get_args(kind)[0]
    return kind


def variants(kind, path, depth=0):
    """Values of the type, each with the path of the field that makes it differ from the first one."""
    kind, name = unwrapped(kind), path.split(".")[-1]
    if name in VALUES:
        return [(path, value) for value in VALUES[name]]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is type(None) or depth > MAX_DEPTH:
        return []
    if origin is typing.Literal:
        return [(path, value) for value in arguments]
    if kind in (bool, int, float, str, object, typing.Any):
        return [(path, {bool: True, int: 1, float: 0.5, str: "x"}.get(kind, {"a": 1}))]
    if is_typed_dict(kind):
        return object_variants(kind, path, depth)
    if origin is dict:
        return [(path, {"a": value}) for _, value in variants(arguments[-1], path, depth + 1)[:1]]
    if "Union" in str(origin):
        return [one for argument in arguments for one in variants(argument, path, depth)]
    if arguments:  # lists
        return [(inner, [value]) for inner, value in variants(arguments[0], path, depth + 1)]
    return variants(str, path, depth)


def object_variants(kind, path, depth):
    hints, found = type_hints(kind), []
    fields = {name: variants(hint, f"{path}.{name}", depth + 1) for name, hint in hints.items()}
    is_required = lambda name: typing.get_origin(hints[name]) is typing_extensions.Required
    required = {name: values[0][1] for name, values in fields.items() if values and is_required(name)}
    label = required.get("type") or required.get("role")
    mark = lambda inner: inner.replace(path, f"{path}({label})", 1) if isinstance(label, str) else inner
    found.append((mark(path), required))
    for name, values in fields.items():
        known = values[1:] if name in required else values
        found += [(mark(inner), {**required, name: value}) for inner, value in known]
    return found


def send(endpoint, body):
    """Status, ignored fields, and the error's `param` and message."""
    request = urllib.request.Request(f"{server}/v1/{endpoint}", json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            response.read()
            return response.status, response.headers.get("x-ignored-fields", ""), None, None
    except urllib.error.HTTPError as error:
        body = json.loads(error.read())["error"]
        return error.code, "", body["param"], body["message"]


def plain(path):
    """The path as `param` has it, without what this script adds."""
    return "".join(part.split("(")[0] for part in path.replace(")", "(").split("(")[::2])


def outcome(endpoint, field, body):
    status, ignored, param, message = send(endpoint, body)
    if status == 200:
        return f"ignored ({ignored})" if field in [name.split(".")[0] for name in ignored.split(", ")] else "done"
    assert status in (400, 404), (endpoint, body, status, message)
    # A file or a model that does not exist has no field in OpenAI's errors either.
    named = re.split(r"[.\[]", param or "")[0]
    assert named == field or named in [*NEEDS.get(field, {}), *COUPLED.get(field, [])] or status == 404, (endpoint, field, body, status, param, message)
    return f"refused: {message}"


def checked_fields(endpoint, types, required):
    """Rows (field, what happens) of the request types."""
    hints = {name: hint for kind in types for name, hint in type_hints(kind).items()}
    rows = []
    for field, hint in sorted(hints.items()):
        if field in OTHERWISE:
            continue
        base = {**required, **NEEDS.get(field, {})}
        if field not in required:
            for value in (None, NEUTRAL[endpoint].get(field)):
                status, ignored, param, message = send(endpoint, {**required, field: value})
                assert (status, ignored) == (200, ""), (endpoint, field, value, status, ignored, param, message)
        seen = {}
        for path, value in variants(hint, field):
            seen.setdefault(path, []).append(outcome(endpoint, field, {**base, field: value}))
        rows += [(path, "; ".join(dict.fromkeys(found))) for path, found in seen.items()]
    return rows


def main():
    model = next(iter(openai.OpenAI(base_url=f"{server}/v1", api_key="none").models.list())).id
    chat = [chat_create_params.CompletionCreateParamsNonStreaming, chat_create_params.CompletionCreateParamsStreaming]
    text = [completion_create_params.CompletionCreateParamsNonStreaming, completion_create_params.CompletionCreateParamsStreaming]
    responses = [response_create_params.ResponseCreateParamsNonStreaming, response_create_params.ResponseCreateParamsStreaming]
    file = openai.OpenAI(base_url=f"{server}/v1", api_key="none").files.create(
        file=("train.jsonl", json.dumps({"messages": [*MESSAGES, {"role": "assistant", "content": "Hi"}]}).encode()), purpose="fine-tune"
    )
    endpoints = {
        "chat/completions": (chat, {"model": model, "messages": MESSAGES, "max_tokens": 1}),
        "completions": (text, {"model": model, "prompt": "Hello", "max_tokens": 1}),
        "embeddings": ([embedding_create_params.EmbeddingCreateParams], {"model": model, "input": "Hello"}),
        "responses": (responses, {"model": model, "input": "Hello", "max_output_tokens": 16}),
        "fine_tuning/jobs": ([job_create_params.JobCreateParams], {"model": model, "training_file": file.id}),
    }
    lines = [f"What happens to the fields of the request types of openai {openai.__version__}: written by `request_fields.py`.", ""]
    for endpoint, (types, required) in endpoints.items():
        lines += [f"## POST /v1/{endpoint}", "", "| field | what happens |", "|---|---|"]
        rows = checked_fields(endpoint, types, required)
        lines += [f"| `{path}` | {text} |" for path, text in rows] + [""]
        print(f"/v1/{endpoint}: {len(rows)} fields and values")
    table, path = "\n".join(lines), pathlib.Path(expected_file)
    if "--update" in flags:
        path.write_text(table)
    assert path.read_text() == table, f"{expected_file} says otherwise: run with --update and read what changed"


if __name__ == "__main__":
    main()
