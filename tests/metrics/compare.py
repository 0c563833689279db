"""A job's figures beside those of scikit-learn, SciPy and seqeval: `compare.py <server> <banking77 sample> <work folder>`.

Trains one adapter of each kind of task over HTTP, each with a validation dataset of its own, asks /predict for every row
of that dataset, and computes the figures again from the answers. Prints both; fails where they differ by more than 1e-4.
What is learned: the intents of banking77, the words of the intents' names (any number of labels), the number of a text's
words, cities and dates in sentences about journeys, and which texts share an intent.
"""

import csv
import json
import random
import sys
from pathlib import Path

import numpy
from scipy.stats import pearsonr, spearmanr
from seqeval.metrics import accuracy_score as tag_accuracy
from seqeval.metrics import f1_score as entity_f1
from seqeval.metrics import precision_score as entity_precision
from seqeval.metrics import recall_score as entity_recall
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, mean_squared_error, r2_score
from sklearn.preprocessing import MultiLabelBinarizer

sys.path.append(str(Path(__file__).parent.parent / "peft"))
from server import Server  # noqa: E402

TOLERANCE = 1e-4
BATCH = 64
CITIES = ["Berlin", "Łódź", "New York", "São Paulo", "Rome", "Cape Town", "Oslo", "Buenos Aires", "Kyiv", "Lyon"]
DATES = ["tomorrow", "3 May", "next Monday", "12 October", "today", "the 4th of July", "Friday"]
JOURNEYS = [
    "I want to fly from {a} to {b} on {d}",
    "Is there a train to {b} {d}?",
    "{a} to {b}, please",
    "Book me a hotel in {a} for {d}",
    "what is the weather like",
    "My flight from {a} was cancelled; can I go on {d} instead?",
]


def journeys(count, seed):
    """Sentences with their entities, as places in code points."""
    chosen = random.Random(seed)
    rows = []
    for _ in range(count):
        template = chosen.choice(JOURNEYS)
        fillers = {"a": chosen.choice(CITIES), "b": chosen.choice(CITIES), "d": chosen.choice(DATES)}
        text, entities = "", []
        for piece in template.replace("}", "{").split("{"):
            if piece in fillers:
                label = "date" if piece == "d" else "city"
                entities.append({"start": len(text), "end": len(text) + len(fillers[piece]), "label": label})
            text += fillers.get(piece, piece)
        rows.append({"text": text, "entities": entities})
    return rows


def halves(rows):
    """A fifth of the rows is put aside, drawn by a seed."""
    rows = random.Random(4).sample(rows, len(rows))
    return [row for index, row in enumerate(rows) if index % 5], rows[::5]


def words_of(label):
    return sorted(set(label.split("_")) - {"or", "of", "by", "not", "to", "my", "for", "is", "the"})


def pairs(rows, seed):
    """Texts with another of the same intent, and pairs with a score that says whether they share it."""
    chosen, by_label = random.Random(seed), {}
    for row in rows:
        by_label.setdefault(row["category"], []).append(row["text"])
    positives, scored = [], []
    for row in rows:
        other = chosen.choice([text for text in by_label[row["category"]] if text != row["text"]])
        positives.append({"text": row["text"], "positive": other})
        second = chosen.choice([row["category"], chosen.choice(sorted(by_label))])
        near = second == row["category"]
        scored.append({"text": row["text"], "text_pair": chosen.choice(by_label[second]), "score": 5 if near else 1})
    return positives, scored


class Desk:
    def __init__(self, server, folder):
        self.server, self.folder, self.failed = server, folder, False

    def lines(self, name, rows):
        file = self.folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    def train(self, name, rows, aside, job):
        dataset = self.server.post_file("/datasets", "options", {}, "dataset", self.lines(f"{name}-aside", aside))
        job = {"name": name, "validation": {"dataset_id": dataset["id"]}, **job}
        return self.server.train(self.lines(name, rows), job)["metrics"]["validation"]

    def predict(self, name, inputs):
        answers = []
        for start in range(0, len(inputs), BATCH):
            body = {"inputs": inputs[start : start + BATCH]}
            answers += self.server.post(f"/predict?adapter={name}", body)["predictions"]
        return answers

    def compare(self, name, said, found):
        for metric, value in found.items():
            difference = abs(said[metric] - value)
            right = difference <= TOLERANCE * max(1, abs(value))
            self.failed |= not right
            print(f"{name:22} {metric:20} {said[metric]:10.6f} {value:10.6f} {'' if right else 'DIFFERENT'}")


def classification(desk, rows):
    rows, aside = halves([{"text": row["text"], "label": row["category"]} for row in rows])
    said = desk.train("classes", rows, aside, {"method": {"type": "head"}})
    truth = [row["label"] for row in aside]
    found = [one["label"] for one in desk.predict("classes", [row["text"] for row in aside])]
    desk.compare("classification", said, {"accuracy": accuracy_score(truth, found), "macro_f1": f1_score(truth, found, average="macro")})


def multi_label(desk, rows):
    rows, aside = halves([{"text": row["text"], "labels": words_of(row["category"])} for row in rows])
    said = desk.train("sets", rows, aside, {"method": {"type": "head"}})
    found = [[one["label"] for one in answer["labels"]] for answer in desk.predict("sets", [row["text"] for row in aside])]
    binary = MultiLabelBinarizer().fit([row["labels"] for row in rows])
    truth, found = binary.transform([row["labels"] for row in aside]), binary.transform(found)
    figures = {
        "micro_f1": f1_score(truth, found, average="micro", zero_division=0),
        "macro_f1": f1_score(truth, found, average="macro", zero_division=0),
        "exact_match": accuracy_score(truth, found),
    }
    desk.compare("multi-label", said, figures)


def regression(desk, rows):
    rows, aside = halves([{"text": row["text"], "value": len(row["text"].split())} for row in rows])
    said = desk.train("numbers", rows, aside, {"method": {"type": "lora"}, "hyperparameters": {"epochs": 3}})
    truth = [row["value"] for row in aside]
    found = [one["value"] for one in desk.predict("numbers", [row["text"] for row in aside])]
    figures = {
        "loss": mean_squared_error(truth, found),
        "mean_absolute_error": mean_absolute_error(truth, found),
        "r2": r2_score(truth, found),
        "pearson": pearsonr(truth, found)[0],
        "spearman": spearmanr(truth, found)[0],
    }
    desk.compare("regression", said, figures)


def tags(words, entities):
    """BIO tags of words, given as places, from entities as places."""
    found = ["O"] * len(words)
    for entity in entities:
        inside = [index for index, (start, end) in enumerate(words) if start < entity["end"] and end > entity["start"]]
        for index in inside:
            found[index] = ("B-" if index == inside[0] else "I-") + entity["label"]
    return found


def places(text):
    """Words as runs of letters and digits, or single signs."""
    found, open_word = [], False
    for place, character in enumerate(text):
        if character.isalnum() and open_word:
            found[-1] = (found[-1][0], place + 1)
        elif not character.isspace():
            found.append((place, place + 1))
        open_word = character.isalnum()
    return found


def token_classification(desk):
    # Few examples and little training, so that there are mistakes to be counted.
    rows, aside = journeys(8, 1), journeys(100, 2)
    job = {"method": {"type": "lora"}, "hyperparameters": {"epochs": 1, "learning_rate": 1e-4}}
    said = desk.train("journeys", rows, aside, job)
    answers = desk.predict("journeys", [row["text"] for row in aside])
    words = [places(row["text"]) for row in aside]
    truth = [tags(one, row["entities"]) for one, row in zip(words, aside, strict=True)]
    found = [tags(one, answer["entities"]) for one, answer in zip(words, answers, strict=True)]
    figures = {
        "precision": entity_precision(truth, found),
        "recall": entity_recall(truth, found),
        "f1": entity_f1(truth, found),
        "macro_f1": entity_f1(truth, found, average="macro"),
    }
    desk.compare("token classification", said, figures)
    print(f"{'':22} entities found: {sum(len(answer['entities']) for answer in answers)}; words' accuracy by entities {tag_accuracy(truth, found):.6f}, by tags {said['accuracy']:.6f}")


def rows_of(desk, name, texts):
    rows = numpy.array([one["embedding"] for one in desk.predict(name, texts)], dtype=numpy.float64)
    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def embedding(desk, rows):
    positives, scored = pairs(rows, 3)
    rows, aside = halves(positives)
    said = desk.train("retrieval", rows, aside, {"hyperparameters": {"epochs": 1}})
    texts = [row["text"] for row in aside]
    candidates = sorted({row["positive"] for row in aside})
    cosines = rows_of(desk, "retrieval", texts) @ rows_of(desk, "retrieval", candidates).T
    ranks = []
    for row, own in zip(aside, cosines, strict=True):
        # What belongs to a text belongs to it wherever the dataset says so, and whichever of the two it is there.
        meant = {other["positive"] for other in rows + aside if other["text"] == row["text"]}
        meant |= {other["text"] for other in rows + aside if other["positive"] == row["text"]}
        allowed = [index for index, text in enumerate(candidates) if text != row["text"] or text in meant]
        best = max(own[index] for index in allowed if candidates[index] in meant)
        ranks.append(1 + sum(own[index] >= best for index in allowed if candidates[index] not in meant))
    ranks = numpy.array(ranks)
    figures = {f"recall_at_{most}": (ranks <= most).mean() for most in (1, 5, 10)}
    figures["mrr_at_10"] = numpy.where(ranks <= 10, 1 / ranks, 0).mean()
    desk.compare("embedding, retrieval", said, figures)
    rows, aside = halves(scored)
    said = desk.train("similarity", rows, aside, {"hyperparameters": {"epochs": 1}})
    first, second = (rows_of(desk, "similarity", [row[field] for row in aside]) for field in ("text", "text_pair"))
    cosines, scores = (first * second).sum(1), [row["score"] for row in aside]
    desk.compare("embedding, similarity", said, {"spearman": spearmanr(cosines, scores)[0], "pearson": pearsonr(cosines, scores)[0]})


def main():
    address, sample, folder = sys.argv[1:]
    with open(sample, newline="") as file:
        rows = list(csv.DictReader(file))
    desk = Desk(Server(address), Path(folder))
    print(f"{'task':22} {'figure':20} {'espalier':>10} {'theirs':>10}")
    classification(desk, rows)
    multi_label(desk, rows)
    regression(desk, rows)
    token_classification(desk)
    embedding(desk, rows)
    sys.exit("the figures differ" if desk.failed else 0)


main()
