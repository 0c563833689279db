"""Renders every conversation with every template, and every snippet, as transformers' `apply_chat_template` does.

    python tests/chat/render.py

Reads templates/, conversations.json and snippets.json, writes expected.json, which crates/core/tests/engine/chat_templates.rs compares with
espalier's own rendering. Needs the packages of tests/peft/requirements.txt and jinja2 (scripts/python-env.sh).

Where the assistant speaks is found here by each family's own marks, and so in another way than espalier finds it, which
asks the template; a template with `{% generation %}` tags is asked by transformers.
"""

import datetime
import json
import re
from pathlib import Path

import jinja2
import transformers
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
NOW = datetime.datetime(2024, 7, 26, 9, 5, 3)

# Special tokens by name, the control tokens that may end a turn, and what the assistant says, in the first group.
FAMILIES = {
    "llama-3.2": {
        "tokens": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        "ends": ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"],
        "said": r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)",
    },
    "llama-2": {
        "tokens": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        "ends": ["<s>", "</s>", "<unk>"],
        "said": r" \[/INST\](.*?</s>)",
    },
    "mistral-v0.3": {
        "tokens": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        "ends": ["<s>", "</s>", "<unk>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"],
        "said": r"\[/INST\](.*?</s>)",
    },
    "qwen2.5": {
        "tokens": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "ends": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "said": r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)",
    },
    "qwen3": {
        "tokens": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        "ends": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "said": r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)",
    },
    "smollm2": {
        "tokens": {
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "<|im_end|>",
        },
        "ends": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "said": r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)",
    },
    "gemma-2": {
        "tokens": {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"},
        "ends": ["<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"],
        "said": r"<start_of_turn>model\n(.*?<end_of_turn>)",
    },
    "phi-3.5": {
        "tokens": {
            "bos_token": "<s>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<unk>",
            "pad_token": "<|endoftext|>",
        },
        "ends": ["<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"],
        "said": r"<\|assistant\|>\n(.*?<\|end\|>)",
    },
    "deepseek-r1": {
        "tokens": {
            "bos_token": "<｜begin▁of▁sentence｜>",
            "eos_token": "<｜end▁of▁sentence｜>",
            "pad_token": "<｜end▁of▁sentence｜>",
        },
        "ends": ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
        "said": r"<｜Assistant｜>(.*?<｜end▁of▁sentence｜>)",
    },
    "zephyr": {
        "tokens": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"},
        "ends": ["<s>", "</s>", "<unk>"],
        "said": r"<\|assistant\|>\n(.*?</s>)",
    },
    "granite-3.3": {
        "tokens": {"bos_token": "<|end_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|end_of_text|>"},
        "ends": ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"],
        "said": r"<\|start_of_role\|>assistant<\|end_of_role\|>(.*?<\|end_of_text\|>)",
    },
    "lfm2.5": {
        "tokens": {"bos_token": "<|startoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"},
        "ends": ["<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|tool_call_end|>"],
        "said": None,
    },
}


class Clock:
    """Stands for the datetime class that `strftime_now` asks."""

    @staticmethod
    def now() -> datetime.datetime:
        return NOW


def tokenizer(template: str, tokens: dict) -> PreTrainedTokenizerFast:
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **tokens)
    made.chat_template = template
    return made


def render(template: str, tokens: dict, case: dict) -> dict:
    """The text, or what the template raised; anything else that goes wrong is a fault of another kind."""
    try:
        text = tokenizer(template, tokens).apply_chat_template(
            case["messages"],
            tools=case.get("tools"),
            documents=case.get("documents"),
            add_generation_prompt=case.get("generation_prompt", False),
            tokenize=False,
            **case.get("variables", {}),
        )
    except jinja2.exceptions.TemplateError as error:
        is_raised = type(error) is jinja2.exceptions.TemplateError
        return {"error": str(error) if is_raised else None}
    except (TypeError, AttributeError, ValueError):
        return {"error": None}
    return {"text": text}


def turns(family: dict, template: str, case: dict, text: str) -> list:
    """Where the assistant speaks: ranges of the text's bytes."""
    if family["said"] is not None:
        places = [found.span(1) for found in re.finditer(family["said"], text, re.DOTALL)]
    else:
        messages = [{key: value for key, value in one.items() if value is not None} for one in case["messages"]]
        _, found = chat_template_utils.render_jinja_template(
            [messages],
            tools=case.get("tools"),
            documents=case.get("documents"),
            chat_template=template,
            return_assistant_tokens_mask=True,
            **family["tokens"],
            **case.get("variables", {}),
        )
        # These tags enclose the newline behind the token that ends a turn.
        places = [(start, start + len(text[start:end].rstrip())) for start, end in found[0]]
    return [[len(text[:start].encode()), len(text[:end].encode())] for start, end in places]


def main():
    chat_template_utils.datetime = Clock
    conversations = json.loads((HERE / "conversations.json").read_text())
    snippets = json.loads((HERE / "snippets.json").read_text())
    cases = []
    for name, family in FAMILIES.items():
        with open(HERE / "templates" / f"{name}.jinja", newline="") as file:
            template = file.read()
        for conversation in conversations:
            case = {"family": name, "conversation": conversation["name"]}
            case |= render(template, family["tokens"], conversation)
            if "text" in case and not conversation["generation_prompt"]:
                case["turns"] = turns(family, template, conversation, case["text"])
            cases.append(case)
    said = {"messages": snippets["messages"], "variables": snippets["variables"]}
    expected = {
        "versions": {"transformers": transformers.__version__, "jinja2": jinja2.__version__},
        "now": NOW.isoformat(),
        "families": {name: {"tokens": one["tokens"], "ends": one["ends"]} for name, one in FAMILIES.items()},
        "cases": cases,
        "snippets": [
            {"template": template} | render(template, {"bos_token": "<s>"}, said)
            for template in snippets["templates"]
        ],
    }
    text = json.dumps(expected, ensure_ascii=False, indent=1)
    (HERE / "expected.json").write_text(text + "\n")
    print(len(cases), "cases,", sum("error" in one for one in cases), "of them refused")
    print(len(expected["snippets"]), "snippets")


if __name__ == "__main__":
    main()
