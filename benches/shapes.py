"""Datasets of quality.py: public ones and generated ones, split into training rows and held-out rows.

Generated texts have a rule behind their label that an application would have, so that the best possible figure is known.
"""

import csv
import json
import random
from pathlib import Path

import common

PRODUCTS = ["card", "account", "transfer", "loan", "invoice", "parcel", "router", "laptop", "ticket", "contract"]
GOOD = ["works well", "arrived early", "is a pleasure to use", "was solved within minutes", "looks great"]
BAD = ["is broken", "never arrived", "is full of errors", "was ignored for weeks", "looks cheap"]
FILLER = ["I wrote to you on Monday about it.", "My colleague had the same question.", "Please see the attached picture.",
          "I am a customer since 2014.", "The weather was fine that day.", "Thank you for reading this."]
TOPICS = {"billing": ["invoice", "payment", "refund", "price"], "delivery": ["parcel", "courier", "address", "tracking"],
          "quality": ["broken", "scratched", "loose", "defect"], "account": ["password", "login", "email", "profile"]}
NAMES = ["Maria Costa", "John Miller", "Aiko Tanaka", "Omar Haddad", "Lena Fischer", "Peter Novak"]
CITIES = ["Lisbon", "Berlin", "Osaka", "Cairo", "Vienna", "Prague", "Boston"]
AMINO = "ACDEFGHIKLMNPQRSTVWY"


class Shape:
    """Rows of a dataset. `kind` is the task: label, labels, value (each also of pairs of texts), entities, completion or preference."""

    def __init__(self, name, kind, train, test):
        self.name, self.kind, self.train, self.test = name, kind, train, test
        self.generates = kind in ("completion", "preference")

    def write(self, folder):
        path = Path(folder) / f"{self.name.replace(' ', '-')}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in self.train))
        return path


def split(rows, test_rows, seed=7):
    rows = list(rows)
    random.Random(seed).shuffle(rows)
    return rows[test_rows:], rows[:test_rows]


def banking77():
    read = lambda file: [{"text": row["text"], "label": row["category"]} for row in common.rows(common.ROOT / file)]
    return Shape("banking77 (sample)", "label", read(common.SAMPLE), read(common.TEST))


def stsb(file):
    """The columns of the file are two sentences and a score from 0 to 5."""
    with open(file, newline="") as opened:
        rows = [{"text": first, "text_pair": second, "value": float(score)} for first, second, score in csv.reader(opened)]
    return Shape("stsb", "value", *split(rows, len(rows) // 10))


def sentiment(chosen):
    good = chosen.random() < 0.5
    text = f"The {chosen.choice(PRODUCTS)} {chosen.choice(GOOD if good else BAD)}. {chosen.choice(FILLER)}"
    return {"text": text, "label": "good" if good else "bad"}


def tiny():
    chosen = random.Random(1)
    rows = {"good": [], "bad": []}
    while min(map(len, rows.values())) < 220:
        row = sentiment(chosen)
        rows[row["label"]].append(row)
    return Shape("tiny (20 x 2)", "label", rows["good"][:20] + rows["bad"][:20], rows["good"][20:220] + rows["bad"][20:220])


def noisy():
    chosen = random.Random(2)
    train, test = [sentiment(chosen) for _ in range(1000)], [sentiment(chosen) for _ in range(400)]
    for row in train[:200]:
        row["label"] = "good" if row["label"] == "bad" else "bad"
    return Shape("noisy labels (20 %)", "label", train, test)


def long_texts():
    chosen = random.Random(3)

    def row():
        filler = " ".join(chosen.choices(FILLER, k=24))
        verdict = chosen.random() < 0.5
        end = "the finding is benign." if verdict else "the finding is suspicious."
        return {"text": f"Report. {filler} Impression: {end}", "label": "benign" if verdict else "suspicious"}

    rows = [row() for _ in range(700)]
    return Shape("long texts", "label", rows[:400], rows[400:])


def imbalanced():
    chosen = random.Random(4)

    def row(positive):
        middle = chosen.choice(["wants the money back for", "asks for a refund of", "demands repayment of"]) if positive else \
            chosen.choice(["asks how to use", "praises", "wants to order", "has a question about", "moved house with"])
        return {"text": f"{chosen.choice(NAMES)} {middle} the {chosen.choice(PRODUCTS)}.", "label": "refund" if positive else "other"}

    train = [row(True) for _ in range(12)] + [row(False) for _ in range(948)]
    test = [row(True) for _ in range(60)] + [row(False) for _ in range(340)]
    return Shape("imbalanced (1 : 79)", "label", train, test)


def multi_label():
    chosen = random.Random(5)

    def row():
        labels = sorted(chosen.sample(sorted(TOPICS), chosen.choice([1, 1, 2, 3])))
        words = [f"There is something about the {chosen.choice(TOPICS[label])}." for label in labels]
        chosen.shuffle(words)
        return {"text": f"{' '.join(words)} {chosen.choice(FILLER)}", "labels": labels}

    rows = [row() for _ in range(1000)]
    return Shape("multi-label", "labels", rows[:600], rows[600:])


def regression():
    chosen = random.Random(6)

    def row():
        rooms, size = chosen.randint(1, 6), chosen.randint(25, 200)
        city = chosen.randrange(len(CITIES))
        return {"text": f"A flat in {CITIES[city]} with {rooms} rooms and {size} square metres.",
                "value": round(size * (8 + 2 * city) + 60 * rooms + chosen.gauss(0, 40), 1)}

    rows = [row() for _ in range(1000)]
    return Shape("regression", "value", rows[:700], rows[700:])


def entities():
    chosen = random.Random(8)

    def row():
        name, city = chosen.choice(NAMES), chosen.choice(CITIES)
        text = chosen.choice(["{0} flew to {1}.", "In {1}, {0} met an old friend.", "{0} lives near {1} and works there."]).format(name, city)
        spans = [{"start": text.index(value), "end": text.index(value) + len(value), "label": label} for value, label in ((name, "person"), (city, "place"))]
        return {"text": text, "entities": sorted(spans, key=lambda span: span["start"])}

    rows = [row() for _ in range(500)]
    return Shape("entities", "entities", rows[:300], rows[300:])


def proteins():
    """Sequences with one of two motifs at a random place."""
    chosen = random.Random(9)

    def row():
        label = chosen.choice(["kinase", "other"])
        motif = "GXGXXG".replace("X", "{}") if label == "kinase" else "CXXCXX".replace("X", "{}")
        motif = motif.format(*chosen.choices(AMINO, k=motif.count("{}")))
        tail = lambda: "".join(chosen.choices(AMINO, k=chosen.randint(20, 60)))
        return {"text": tail() + motif + tail(), "label": label}

    rows = [row() for _ in range(800)]
    return Shape("proteins", "label", rows[:500], rows[500:])


def pair_labels():
    """Whether the second sentence says the same of the same product."""
    chosen = random.Random(10)

    def row():
        product, good = chosen.choice(PRODUCTS), chosen.random() < 0.5
        same = chosen.random() < 0.5
        other = good if same else not good
        return {"text": f"The {product} {chosen.choice(GOOD if good else BAD)}.", "text_pair": f"My {product} {chosen.choice(GOOD if other else BAD)}.",
                "label": "agree" if same else "disagree"}

    rows = [row() for _ in range(1400)]
    return Shape("pairs with labels", "label", rows[:1000], rows[1000:])


def gsm8k(file):
    """The first rows of the file; full size takes hours on two cores."""
    read = [json.loads(line) for line in Path(file).read_text().splitlines()[:200]]
    rows = [{"prompt": row["question"], "completion": row["answer"]} for row in read]
    return Shape("gsm8k (150 rows)", "completion", rows[:150], rows[150:])


def preferences():
    """Answers that say what happens next are chosen over ones that do not."""
    chosen = random.Random(11)
    asks = ["My {} does not work.", "Where is my {}?", "I want to cancel the {}.", "Can I exchange the {}?", "The {} cost more than it should."]
    helps = ["We looked into it: you get an answer by {} at the latest.", "A colleague calls you on {} and settles it.", "It is done by {}, and you need to do nothing."]
    blunt = ["Please read our terms.", "That is not our department.", "We received many requests.", "Try it again later.", "Everybody has to wait."]

    def row():
        product = chosen.choice(PRODUCTS)
        day = chosen.choice(["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"])
        return {"prompt": chosen.choice(asks).format(product), "chosen": " " + chosen.choice(helps).format(day), "rejected": " " + chosen.choice(blunt)}

    rows = [row() for _ in range(300)]
    return Shape("preferences", "preference", rows[:200], rows[200:])


def all_shapes(stsb_file, gsm8k_file):
    shapes = [banking77(), tiny(), noisy(), long_texts(), imbalanced(), multi_label(), regression(), entities(), proteins(), pair_labels(), preferences()]
    return [*([stsb(stsb_file)] if stsb_file else []), *shapes, *([gsm8k(gsm8k_file)] if gsm8k_file else [])]
