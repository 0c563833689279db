"""OpenAI's own Python client fine-tunes on a running espalier: `fine_tuning.py SERVER`.

A script for OpenAI's API with another base URL: upload, create, events, checkpoints, the fine-tuned model, cancel, preferences. Then
embeddings. Fails where an answer is not what the client promises its users.
"""

import base64
import io
import json
import struct
import sys
import time

import openai

(server,) = sys.argv[1:]
client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
FRUIT = {"red": "apple", "green": "pear", "blue": "plum"}


def upload(rows, name="train.jsonl"):
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file = client.files.create(file=(name, io.BytesIO(content)), purpose="fine-tune")
    assert (file.object, file.bytes, file.filename, file.purpose, file.status) == ("file", len(content), name, "fine-tune", "processed")
    assert client.files.retrieve(file.id).id == file.id and client.files.content(file.id).content == content
    assert file.id in [one.id for one in client.files.list(purpose="fine-tune")]
    return file


def conversations():
    message = lambda role, content: {"role": role, "content": content}
    return [{"messages": [message("user", f"fruit {colour}"), message("assistant", fruit)]} for colour, fruit in FRUIT.items()] * 8


def finished(job, patience=600):
    end = time.monotonic() + patience
    while job.status not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() < end, job
        time.sleep(0.5)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def supervised(base):
    train, held_out = upload(conversations()), upload(conversations()[:3], "held-out.jsonl")
    job = client.fine_tuning.jobs.create(
        model=base, training_file=train.id, validation_file=held_out.id, suffix="Fruit Names", seed=7, metadata={"team": "fruit"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 10, "batch_size": "auto", "learning_rate_multiplier": 2}}},
    )  # fmt: skip
    assert (job.object, job.training_file, job.validation_file, job.seed) == ("fine_tuning.job", train.id, held_out.id, 7)
    assert (job.hyperparameters.n_epochs, job.hyperparameters.learning_rate_multiplier, job.metadata) == (10, 2, {"team": "fruit"})
    assert job.fine_tuned_model is None and job.method.type == "supervised"
    job = finished(job)
    assert job.status == "succeeded", job.error
    assert job.trained_tokens > 0 and job.finished_at >= job.created_at and job.error is None
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=5))
    assert events[0].message == "The job has successfully completed" and events[-1].message.endswith("is queued"), events
    assert len({event.id for event in events}) == len(events) > 10
    assert any(event.type == "metrics" and "train_loss" in event.data for event in events)
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert checkpoint.fine_tuning_job_id == job.id and checkpoint.metrics.valid_loss > 0
    for model in (job.fine_tuned_model, checkpoint.fine_tuned_model_checkpoint):
        answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "fruit red"}], temperature=0, max_tokens=8)
        assert answer.choices[0].message.content.strip() == "apple", answer
    assert client.models.retrieve(job.fine_tuned_model).id == job.fine_tuned_model
    (results,) = job.result_files
    table = client.files.content(results).text.splitlines()
    assert table[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy" and len(table) > 2
    assert client.files.retrieve(results).purpose == "fine-tune-results"
    assert [one.id for one in client.fine_tuning.jobs.list(extra_query={"metadata[team]": "fruit"})] == [job.id]
    return job, train


def dpo(base):
    message = lambda role, content: {"role": role, "content": content}
    rows = [
        {"input": {"messages": [message("user", f"fruit {colour}")]}, "preferred_output": [message("assistant", fruit)],
         "non_preferred_output": [message("assistant", "I do not know.")]}
        for colour, fruit in FRUIT.items()
    ] * 4  # fmt: skip
    file = upload(rows, "preferences.jsonl")
    method = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1, "beta": 0.2}}}
    job = client.fine_tuning.jobs.create(model=base, training_file=file.id, method=method)
    assert job.method.type == "dpo" and job.method.dpo.hyperparameters.beta == 0.2
    refused(lambda: client.fine_tuning.jobs.create(model=base, training_file=file.id), "training_file")
    assert finished(job).status == "succeeded"


def control(base, file):
    hyperparameters = {"n_epochs": 1000}
    create = lambda: client.fine_tuning.jobs.create(model=base, training_file=file.id, hyperparameters=hyperparameters)
    job = create()
    assert client.fine_tuning.jobs.pause(job.id).id == job.id
    while client.fine_tuning.jobs.retrieve(job.id).status != "paused":
        time.sleep(0.2)
    assert client.fine_tuning.jobs.resume(job.id).status in ("queued", "running")
    client.fine_tuning.jobs.cancel(job.id)
    job = finished(job)
    assert job.status == "cancelled" and job.fine_tuned_model is None and not job.result_files
    first, second = client.fine_tuning.jobs.list(limit=2).data
    assert first.id == job.id and second.id != job.id
    everything = [one.id for one in client.fine_tuning.jobs.list(limit=1)]
    assert len(everything) == len(set(everything)) >= 3


def refused(call, param):
    try:
        call()
    except openai.BadRequestError as error:
        assert error.body["param"] == param, error.body
    else:
        raise AssertionError(f"{param} is not refused")


def errors(base, file):
    refused(lambda: client.files.create(file=("a.jsonl", b"{}"), purpose="batch"), "purpose")
    refused(lambda: client.fine_tuning.jobs.create(model=base, training_file="file-none"), "training_file")
    refused(lambda: client.fine_tuning.jobs.create(model="none", training_file=file.id), "model")
    method = {"type": "reinforcement", "reinforcement": {"grader": {}}}
    refused(lambda: client.fine_tuning.jobs.create(model=base, training_file=file.id, method=method), "method.type")
    wandb = [{"type": "wandb", "wandb": {"project": "fruit"}}]
    refused(lambda: client.fine_tuning.jobs.create(model=base, training_file=file.id, integrations=wandb), "integrations")
    try:
        client.fine_tuning.jobs.retrieve("ftjob-none")
    except openai.NotFoundError:
        pass
    else:
        raise AssertionError("an unknown job is found")


def embeddings(base):
    texts = ["where is my card?", "how do I pay?"]
    floats = client.embeddings.create(model=base, input=texts, encoding_format="float")
    packed = client.embeddings.create(model=base, input=texts)
    assert floats.usage.prompt_tokens == floats.usage.total_tokens > 4
    for one, other in zip(floats.data, packed.data, strict=True):
        assert abs(sum(value * value for value in one.embedding) - 1) < 1e-4
        assert max(abs(value - other) for value, other in zip(one.embedding, other.embedding, strict=True)) < 1e-5
    short = client.embeddings.create(model=base, input=texts[0], dimensions=16, encoding_format="float").data[0].embedding
    assert len(short) == 16 and abs(sum(value * value for value in short) - 1) < 1e-4
    raw = client.embeddings.with_raw_response.create(model=base, input=texts[0], encoding_format="base64", extra_body={"sampler": 1})
    assert raw.headers["x-ignored-fields"] == "sampler"
    value = json.loads(raw.text if isinstance(raw.text, str) else raw.text())["data"][0]["embedding"]
    assert len(struct.unpack(f"<{len(floats.data[0].embedding)}f", base64.b64decode(value))) == len(floats.data[0].embedding)
    refused(lambda: client.embeddings.create(model=base, input=texts, dimensions=10**6), "dimensions")
    refused(lambda: client.embeddings.create(model=base, input=["a", ""]), "input[1]")


base = next(iter(client.models.list())).id
job, file = supervised(base)
dpo(base)
control(base, file)
errors(base, file)
embeddings(base)
assert client.files.delete(file.id).deleted
print(f"fine-tuned {job.fine_tuned_model} with openai {openai.__version__}")
