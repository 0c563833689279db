"""Copies a finished job of a SQLite database many times, and gives the newest copy many rows of metrics. Every tenth copy is cancelled.

seed.py DATABASE JOBS ROWS    prints the id of the copy with the metrics
"""

import json
import sqlite3
import sys
import uuid

database, jobs, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
connection = sqlite3.connect(database, timeout=30)
columns = [column[1] for column in connection.execute("pragma table_info(jobs)")]
job = dict(zip(columns, connection.execute("select * from jobs where status = 'succeeded' limit 1").fetchone()))
start = int.from_bytes(job["id"][:6], "big")


def insert(table, values):
    places = ", ".join("?" * len(values))
    connection.execute(f"insert into {table} ({', '.join(values)}) values ({places})", list(values.values()))


for index in range(1, jobs + 1):
    copy = bytearray(uuid.uuid4().bytes)
    # A UUID of version 7 begins with its time.
    copy[:6] = (start + index).to_bytes(6, "big")
    copy[6] = 0x70 | copy[6] & 0x0F
    last = rows + 1 if index == jobs else 0
    status = "cancelled" if index % 10 == 5 else job["status"]
    insert("jobs", {**job, "id": bytes(copy), "status": status, "created_at": job["created_at"] + index, "last_sequence": last})

events = [{"kind": "status", "step": None, "split": None, "data": {"status": "queued"}}]
for step in range(rows):
    data = {"step": step, "split": "train", "metrics": {"loss": 3 / (1 + step / 1000) + step * 7919 % 100 / 1000}}
    events.append({"kind": "metrics", "step": step, "split": "train", "data": data})
for sequence, event in enumerate(events, start=1):
    stored = {**event, "data": json.dumps(event["data"]), "created_at": job["created_at"]}
    insert("events", {"job_id": bytes(copy), "sequence": sequence, **stored})
connection.commit()
print(uuid.UUID(bytes=bytes(copy)))
