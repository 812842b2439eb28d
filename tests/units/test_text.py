"""Text in and out: WikiText's spelling there and back, articles, and files that are not what they should be."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from neuro.errors import FormatError, MissingError, UsageError
from neuro.text import articles, detokenize, encode_line, read_text, retokenize

PAIRS = [
    (" The game 's role @-@ playing cost $ 1 @,@ 000 . ", "The game's role-playing cost $1,000."),
    (" It rose 3 @.@ 5 % ( US $ 28 million ) . ", "It rose 3.5% (US$28 million)."),
    (' He said , " don \'t go " ; she went . ', "He said, \"don't go\"; she went."),
    (" the games ' method , known as ' north bay ' . ", "the games' method, known as 'north bay'."),
    (" In the 1960s and ' 70s , for 2 – 3 years — at 80 km / h . ", "In the 1960s and '70s, for 2–3 years—at 80 km/h."),
    (" Dr. Smith of the U.S. , e.g. at 12 : 30 p.m. , wrote R & B [ sic ] ... ",
     "Dr. Smith of the U.S., e.g. at 12:30 p.m., wrote R&B [sic]..."),
    (" No. 5 at 100 ° F on # 20 ", "No. 5 at 100 °F on #20"),
    (" = = <unk> 's end = = ", "= = <unk>'s end = ="),
    (" <unk> @-@ foot , 16 @,@ <unk> and <unk> @.@ 9 <unk> ", "<unk>-foot, 16,<unk> and <unk>.9 <unk>"),
    (" ", ""),
]  # fmt: skip


@pytest.mark.parametrize(("line", "text"), PAIRS)
def test_detokenized_line_is_english_and_comes_back(line: str, text: str) -> None:
    assert detokenize(line) == text
    assert retokenize(text) == line


def test_line_that_does_not_come_back_is_coded_as_it_is() -> None:
    assert encode_line(" a dog , a cat . ") == ("a dog, a cat.", True)
    for line in ("", " two  spaces ", " no edge", " rock 'n'roll "):
        assert encode_line(line) == (line, False)


def test_no_wikitext_joiner_is_left() -> None:
    assert detokenize(" @-@ a @,@ b @.@ ") == "-a,b."


def test_articles_are_cut_at_titles_and_keep_every_line() -> None:
    lines = [" ", " = One = ", " ", " = = Part = = ", " text ", " = Wins ; L = ", " ", " = Two = ", " ", " more "]
    parts = list(articles(lines))
    assert [part[0] for part in parts] == [" ", " = Two = "]
    assert [line for part in parts for line in part] == lines
    assert list(articles([])) == []
    assert list(articles([" preface ", " ", " = One = "])) == [[" preface ", " "], [" = One = "]]


def test_read_text_of_plain_gzip_and_folder(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes("zwei\u2028drei\r\n".encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one"))
    (tmp_path / "c.md").write_bytes(b"four")
    (tmp_path / "d.json").write_bytes(b"no")
    assert read_text(tmp_path / "a.txt.gz") == "one"
    assert read_text(tmp_path) == "one\nzwei\u2028drei\r\n\nfour"


def test_read_text_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"none\.txt: got no such file.*\nCheck the path"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(MissingError, match=r"got a folder without text files.*\nPut text files"):
        read_text(tmp_path)
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(FormatError, match=r"bad\.txt: got invalid UTF-8 at byte offset 3.*\nConvert the file to UTF-8"):
        read_text(tmp_path / "bad.txt")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(os.urandom(500))[:300])
    with pytest.raises(FormatError, match=r"cut\.txt\.gz: got a truncated or damaged gzip file.*\nCopy or download"):
        read_text(tmp_path / "cut.txt.gz")
    (tmp_path / "empty.txt").write_bytes(b" \n")
    with pytest.raises(UsageError, match=r"empty\.txt: got empty text.*\nName a file that holds text"):
        read_text(tmp_path / "empty.txt")


def test_wikitext_lines_round_trip() -> None:
    data = os.environ.get("NEURO_DATA")
    if not data:
        pytest.skip("NEURO_DATA is not set: it names the folder with wikitext-2/")
    lines = read_text(Path(data) / "wikitext-2" / "valid.txt.gz").removesuffix("\n").split("\n")
    assert len(list(articles(lines))) == 60
    filled = [line for line in lines if line.strip()]
    texts = [detokenize(line) for line in filled]
    assert not any(joiner in text for text in texts for joiner in ("@-@", "@,@", "@.@"))
    same = sum(retokenize(text) == line for text, line in zip(texts, filled, strict=True))
    assert same / len(filled) > 0.99
