"""The training corpus of the small model: WikiText-2 as natural English, War and Peace, and a byte BPE of both.

    python benchmarks/prepare_corpus.py --data $NEURO_DATA --out DIR --vocab 8192
    python benchmarks/prepare_corpus.py --data $NEURO_DATA --out DIR --words

writes train/ and valid/ (one file per document), tokenizer.json, train.toml and training_text.safetensors (what a model
trained on it has seen: `neuro train` puts the same into the model's folder), and prints what it counted as JSON.
Then `neuro train DIR/train.toml --out RUN` trains the model. With --words it is WikiText-2 alone, as published, over its
closed vocabulary (preset wikitext2-word). Only the train and valid splits are read.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from neuro import corpus, presets, training_text
from neuro.text import articles, detokenize, encode_line, read_text
from neuro.tokenizer import Tokenizer


def published(path: Path) -> list[str]:
    """WikiText as it is, an article a document."""
    return ["\n".join(article) + "\n" for article in articles(read_text(path).removesuffix("\n").split("\n"))]


def wikitext(path: Path) -> tuple[list[str], float]:
    """WikiText as documents of natural English (one article each), and the share of non-blank lines that round-trip."""
    lines = read_text(path).removesuffix("\n").split("\n")
    documents: list[str] = []
    total = exact = 0
    for article in articles(lines):
        natural: list[str] = []
        for line in article:
            text, same = encode_line(line)
            natural.append(text if same else detokenize(line))
            if line.strip():
                total += 1
                exact += same
        documents.append("\n".join(natural) + "\n")
    return documents, exact / total


def war_and_peace(path: Path) -> list[str]:
    """The novel as documents, a paragraph a line: its books end at three blank lines or before an epilogue."""
    text = read_text(path).removeprefix("\ufeff").replace("\r\n", "\n")
    books = re.split(r"\n{4,}|\n(?=(?:FIRST|SECOND) EPILOGUE)", text)
    documents = []
    for book in books:
        paragraphs = (re.sub(r"\s*\n\s*", " ", part.strip()) for part in re.split(r"\n\n+", book))
        document = "\n".join(part for part in paragraphs if part)
        if document:
            documents.append(document + "\n")
    return documents


def write_documents(folder: Path, documents: list[str]) -> None:
    """One UTF-8 file per document, in order; an earlier set of files must not be mixed in."""
    folder.mkdir(parents=True)
    for number, document in enumerate(documents):
        (folder / f"{number:05d}.txt").write_text(document, encoding="utf-8", newline="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext-2/ and books/")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--vocab", type=int, default=8192, help="ids of the byte BPE")
    parser.add_argument("--words", action="store_true", help="WikiText-2 alone, as published, and its 33,278 words")
    options = parser.parse_args()
    report: dict[str, object] = {}
    sources = {name: options.data / "wikitext-2" / f"{name}.txt.gz" for name in ("train", "valid")}
    if options.words:
        splits = {name: published(path) for name, path in sources.items()}
    else:
        wiki, exact = wikitext(sources["train"])
        valid, valid_exact = wikitext(sources["valid"])
        splits = {
            "train": wiki + war_and_peace(options.data / "books" / "warpeace_input.txt.gz"),
            "valid": valid,
        }
        report |= {"round_trip_train": exact, "round_trip_valid": valid_exact, "flag_probability": 1.0 - exact}
    for name, documents in splits.items():
        write_documents(options.out / name, documents)

    size = presets.wikitext2_word().brain.vocab_size if options.words else options.vocab
    lines = (line + "\n" * options.words for document in splits["train"] for line in document.split("\n"))
    tokenizer = Tokenizer.train(lines, size, kind="words" if options.words else "bpe")
    tokenizer.save(options.out / "tokenizer.json")
    training_text.write(options.out, training_text.record(training_text.of_documents(splits["train"])))
    paths = {name: json.dumps((options.out / name).as_posix()) for name in splits}
    preset = "wikitext2-word" if options.words else "small"
    toml = [f'preset = "{preset}"', "[data]", *(f"{name} = {path}" for name, path in paths.items())]
    toml.append(f"tokenizer = {json.dumps((options.out / 'tokenizer.json').as_posix())}")
    (options.out / "train.toml").write_text("\n".join(toml) + "\n", encoding="utf-8")
    report |= {"vocab": tokenizer.vocab_size, "tokenizer_sha256": tokenizer.fingerprint}
    for name, documents in splits.items():
        ids = corpus.encode(documents, tokenizer)
        size = sum(len(document.encode("utf-8")) for document in documents)
        report[name] = {
            "documents": len(documents),
            "bytes": size,
            "tokens": len(ids),
            "bytes_per_token": size / (len(ids) - len(documents)),
            "unk_tokens": int((ids == tokenizer.unk_id).sum()),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
