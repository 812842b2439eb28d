"""The model under EleutherAI's lm-evaluation-harness, offline: two small tasks from local files, and the harness itself.

    pip install 'neuro-hybrid[harness]'
    python examples/harness.py tasks --data $NEURO_DATA --out TASKS
    python examples/harness.py lm_eval --model hf --model_args pretrained=small,backend=causal --device cpu \
        --include_path TASKS --tasks neuro_wikitext2
    python examples/harness.py lm_eval --model hf --model_args pretrained=small,backend=causal,add_bos_token=True \
        --device cpu --include_path TASKS --tasks neuro_babi --batch_size 4

``tasks`` writes each task as a YAML file and its items as JSON lines. `neuro_wikitext2` is the harness's own wikitext task
(rolling log-likelihood of each article, its word count and detokenizer) over the test split; `neuro_babi` asks bAbI's
test questions, by default 20 of each of the twenty tasks, and lets the harness choose the likeliest of the task's answers.
``lm_eval`` is the harness's command line, unchanged, with our classes registered with transformers and the name of a
shipped model turned into its folder. The harness gives every item a fresh state: its numbers are of a model whose memories
hold at most the item itself, cut at ``max_length`` (2,048 tokens unless --model_args says otherwise). A rolling task gets its
<bos> from the harness; with add_bos_token there would be two. An item with a context needs add_bos_token to get one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from neuro import folder, text
from neuro.evaluate import babi

WIKITEXT = """task: neuro_wikitext2
dataset_path: json
dataset_kwargs:
  data_files:
    test: {items}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
process_results: !function neuro_wikitext2.process_results
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
metadata:
  version: 1.0
"""
COUNTS = '''"""Log-likelihood per word and byte of the file as published, before it was detokenized."""


def process_results(doc, results):
    (loglikelihood,) = results
    counts = {"word_perplexity": doc["words"], "byte_perplexity": doc["bytes"], "bits_per_byte": doc["bytes"]}
    return {name: (loglikelihood, count) for name, count in counts.items()}
'''
BABI = """task: neuro_babi
dataset_path: json
dataset_kwargs:
  data_files:
    test: {items}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{story}}}}"
doc_to_choice: choices
doc_to_target: right
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


def wikitext_items(path: Path) -> list[dict[str, object]]:
    """Articles in natural English, with the words (an <eos> a line) and bytes of the published form."""
    lines = text.read_text(path).removesuffix("\n").split("\n")
    return [
        {
            "text": "".join(text.encode_line(line)[0] + "\n" for line in article),
            "words": sum(len(line.split()) + 1 for line in article),
            "bytes": sum(len(line.encode()) + 1 for line in article),
        }
        for article in text.articles(lines)
    ]


def babi_items(path: Path, each: int) -> list[dict[str, object]]:
    """Questions of every task with the story so far; which ones follows from the seed 0."""
    items = []
    for name, raw in babi.read(path).items():
        stories = babi.parsed(raw, name)
        choices = sorted({line.answer for story in stories for line in story if line.answer is not None})
        found = []
        for story in stories:
            said: list[str] = []
            for line in story:
                if line.answer is None:
                    said.append(line.said + "\n")
                else:
                    right = choices.index(line.answer)
                    found.append({"story": "".join(said) + line.said, "choices": choices, "right": right, "task": name})
        items += [found[i] for i in np.random.default_rng(0).permutation(len(found))[:each]]
    return items


def write_tasks(data: Path, out: Path, each: int) -> None:
    """Put both tasks into a folder for ``--include_path``."""
    out.mkdir(parents=True, exist_ok=True)
    made = {
        "neuro_wikitext2": (WIKITEXT, wikitext_items(data / "wikitext-2" / "test.txt.gz")),
        "neuro_babi": (BABI, babi_items(data / "babi" / "babi_en.zip", each)),
    }
    for name, (form, items) in made.items():
        lines = out / f"{name}.jsonl"
        lines.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        (out / f"{name}.yaml").write_text(form.format(items=json.dumps(str(lines.resolve()))), encoding="utf-8")
    (out / "neuro_wikitext2.py").write_text(COUNTS, encoding="utf-8")


def harness(argv: list[str]) -> None:
    """The harness's command line, which then knows our models."""
    from lm_eval.__main__ import cli_evaluate

    from neuro import hf

    hf.register()
    for name in folder.shipped():
        argv = [arg.replace(f"pretrained={name},", f"pretrained={folder.locate(name)},") for arg in argv]
        argv = [f"pretrained={folder.locate(name)}" if arg == f"pretrained={name}" else arg for arg in argv]
    sys.argv = ["lm_eval", *argv]
    cli_evaluate()


def main() -> None:
    if sys.argv[1:2] == ["lm_eval"]:
        return harness(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["tasks", "lm_eval"])
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/ and babi/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=20, help="of each bAbI task")
    options = parser.parse_args()
    write_tasks(options.data, options.out, options.questions)


if __name__ == "__main__":
    main()
