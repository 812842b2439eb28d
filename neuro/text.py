"""Text in and out: plain files, and WikiText's word tokens as natural English and back.

WikiText is stored as Moses-like word tokens (``role @-@ playing``, ``John 's``). A model that is to read and write
English should not learn that spelling, so lines are detokenized, and `retokenize` is the inverse that makes the
published word-level figures comparable: a line that does not come back byte for byte is coded as it is (`encode_line`).

Lines are always without their line feed, and text is split at ``"\\n"`` only: ``str.splitlines`` also splits at
separators such as U+2028 and would lose bytes.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from neuro.errors import FormatError, MissingError, UsageError

UNKNOWN = "<unk>"

_JOINED = {"@-@": "-", "@,@": ",", "@.@": "."}
_LEFT = frozenset([",", ".", ";", ":", "!", "?", ")", "]", "%", "...", "..", "....", "…", "”", "’", "″", "′"])
_RIGHT = frozenset(["(", "[", "$", "£", "€", "¥", "₹", "₤", "#", "“", "‘", "„", "¿", "¡", "~"])
_DOLLAR_COUNTRIES = frozenset(["US", "U.S.", "A", "AU", "C", "CA", "NZ", "HK", "S"])
# End in s and open a quotation ("known as 'x'") far more often than they own something.
_NOT_OWNERS = frozenset(["as", "is", "was", "has", "this", "his", "hers", "does", "means", "says", "includes", "its"])
_CURLY_ENDINGS = frozenset(["s", "t", "re", "ll", "ve", "d", "m"])

# Words that keep their full stop (the English prefixes of the Moses tokenizer that made WikiText).
_ABBREVIATIONS = frozenset(
    "Adj Adm Adv Asst Bart Bldg Brig Bros Capt Cmdr Col Comdr Con Corp Cpl DR Dr Drs Ens Gen Gov Hon Hr Hosp Insp Lt "
    "MM MR MRS MS Maj Messrs Mlle Mme Mr Mrs Ms Msgr Op Ord Pfc Ph Prof Pvt Rep Reps Res Rev Rt Sen Sens Sfc Sgt Sr "
    "St Supt Surg c rev ssp subsp v var vs".split()
)
_NUMBER_ABBREVIATIONS = frozenset(["No", "Nos", "Art", "Nr", "pp"])

# `<unk>` is the one word with angle brackets, so "[\w>]" is "ends a word" once other brackets stand alone.
_ALONE = re.compile(r"(?<!<unk)>|<(?!unk>)|[^\w\s.',\-<>`]|_")
_DOTS = re.compile(r"\.{2,}")
_HYPHEN = re.compile(r"(?<=[\w>])-(?=[\w<])")
_COMMA = re.compile(r"(?P<inside>(?<=[\d>]),(?=[\d<]))|,")
_POINT = re.compile(r"(?<=[\d>])\.(?=[\d<])")
_APOSTROPHE = re.compile(r"(?P<inside>(?<=[^\W\d_])'(?=[^\W\d_])|(?<=>)'(?=\w)|(?<=\d)'(?=s))|'")


def detokenize(line: str) -> str:
    """A WikiText line as natural English: ``" John 's role @-@ play . "`` -> ``"John's role-play."``.

    Args:
        line: space-separated word tokens, without the line feed. `<unk>` stays as it is.
    """
    tokens = line.strip(" ").split(" ")
    last = len(tokens) - 1
    pieces: list[str] = []
    glued = True
    double_open = single_open = False
    for i, token in enumerate(tokens):
        before = tokens[i - 1] if i else ""
        after = tokens[i + 1] if i < last else ""
        left = right = False
        if token[:1].isalnum() or token == UNKNOWN:
            pass
        elif token in _JOINED:
            token = _JOINED[token]
            left = right = True
        elif token in _LEFT:
            left = not (token[0] == before[-1:] == ".")
            right = (token == "’" and _ends_word(before) and after in _CURLY_ENDINGS) or (
                token == ":" and _is_number(before) and _is_number(after) and len(before) <= 2 == len(after)
            )
        elif token in _RIGHT:
            right = token != "#" or _starts_word(after)
            left = token == "$" and before in _DOLLAR_COUNTRIES
        elif token == '"':
            left, right = double_open, not double_open
            double_open = not double_open
        elif token == "'":
            owner = before == UNKNOWN or (before[-1:] in ("s", "S", "x", "z") and before not in _NOT_OWNERS)
            if after[:1].isdigit() and not single_open:
                right = True  # the '70s
            elif single_open or owner or "'" not in tokens[i + 1 :]:
                left, single_open = True, False
            else:
                right = single_open = True
        elif token[0:1] == "'":
            left = _ends_word(before)
        elif token in ("—", "‑"):
            left = right = True
        elif token == "–":
            left = right = before[-1:].isdigit() and after[:1].isdigit()
        elif token == "−":
            right = after[:1].isdigit()
        elif token == "°":
            right = after in ("C", "F")
            left = not right
        elif token == "/":
            left = right = _ends_word(before) and _starts_word(after) and not (before.islower() and after[:1].isupper())
        elif token == "&":
            left = right = len(before) == len(after) == 1
        if not (glued or left):
            pieces.append(" ")
        pieces.append(token)
        glued = right
    return "".join(pieces)


def retokenize(text: str) -> str:
    """The WikiText line of natural English, with its leading and trailing space: the inverse of `detokenize`."""
    text = _ALONE.sub(r" \g<0> ", text)
    text = _DOTS.sub(r" \g<0> ", text)
    text = _HYPHEN.sub(" @-@ ", text)
    text = _COMMA.sub(lambda m: " @,@ " if m["inside"] else " , ", text)
    text = _POINT.sub(" @.@ ", text)
    text = _APOSTROPHE.sub(lambda m: " '" if m["inside"] else " ' ", text)
    words = [word for word in text.split(" ") if word]
    tokens: list[str] = []
    for i, word in enumerate(words):
        after = words[i + 1] if i + 1 < len(words) else ""
        if word[-1] == "." and word.strip(".") and not _keeps_stop(word[:-1], after):
            tokens += [word[:-1], "."]
        else:
            tokens.append(word)
    return f" {' '.join(tokens)} " if tokens else " "


def encode_line(line: str) -> tuple[str, bool]:
    """What is coded for one WikiText line, and the flag that makes the code lossless.

    ``(natural text, True)`` when `retokenize` gives the line back byte for byte, else ``(line, False)``.
    """
    text = detokenize(line)
    return (text, True) if retokenize(text) == line else (line, False)


def articles(lines: Iterable[str]) -> Iterator[list[str]]:
    """WikiText lines cut before each level-1 heading (``" = Title = "`` between blank lines).

    No line is lost: blank lines before the first heading belong to its article, other text there is a part of its own.
    """
    everything = list(lines)
    article: list[str] = []
    for i, line in enumerate(everything):
        # The blank lines tell headings from the keys of tables ("W = Wins ; L = Losses"), which WikiText cut at "=".
        alone = not "".join(everything[max(i - 1, 0) : i] + everything[i + 1 : i + 2]).strip()
        if alone and _is_title(line) and any(map(str.strip, article)):
            yield article
            article = []
        article.append(line)
    if article:
        yield article


def read_text(path: Path) -> str:
    """The UTF-8 text of a file (plain or gzip), or of a folder: all .txt, .txt.gz and .md, sorted, a line feed between.

    Raises:
        MissingError: there is no such file, or the folder holds no text file.
        FormatError: invalid UTF-8 or a damaged gzip file.
        UsageError: the text is empty.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith((".txt", ".txt.gz", ".md")))
        if not files:
            raise MissingError(
                f"{path}: got a folder without text files, expected .txt, .txt.gz or .md files.",
                "Put text files into the folder or name another one.",
            )
    elif path.is_file():
        files = [path]
    else:
        raise MissingError(
            f"{path}: got no such file, expected a text file or a folder of text files.", "Check the path."
        )
    text = "\n".join(_read_file(file) for file in files)
    if not text.strip():
        raise UsageError(f"{path}: got empty text, expected at least one character.", "Name a file that holds text.")
    return text


def _read_file(path: Path) -> str:
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise FormatError(
                f"{path}: got a truncated or damaged gzip file ({error}), expected a whole one.",
                "Copy or download the file again.",
            ) from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path}: got invalid UTF-8 at byte offset {error.start}, expected UTF-8 text.",
            "Convert the file to UTF-8, for example with: iconv -f WINDOWS-1252 -t UTF-8 FILE",
        ) from error


def _ends_word(token: str) -> bool:
    return token[-1:].isalnum() or token == UNKNOWN


def _starts_word(token: str) -> bool:
    return token[:1].isalnum() or token == UNKNOWN


def _is_number(token: str) -> bool:
    return token.isdecimal()


def _is_title(line: str) -> bool:
    return line.startswith(" = ") and line.endswith(" = ") and not line.startswith(" = = ") and len(line) > 5


def _keeps_stop(word: str, after: str) -> bool:
    if "." in word:
        return any(c.isalpha() for c in word)
    return (
        word in _ABBREVIATIONS
        or (len(word) == 1 and "A" <= word <= "Z")
        or after[:1].islower()
        or (word in _NUMBER_ABBREVIATIONS and (after[:1].isdigit() or after == UNKNOWN))
    )
