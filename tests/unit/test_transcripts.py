"""What a process prints, in whatever pieces it is read: lines, the end, and notes in between."""

from __future__ import annotations

import random

import pytest

from wfengine.transcripts import CUT, LINE_BYTES, LOG_BYTES, NOTE_BYTES, TAIL_BYTES, Transcript, note

TOKEN = "0123456789abcdef"


def read(data: bytes, cuts: list[int]) -> tuple[list[str], list[list[str]], str]:
    """Return the lines, the notes and the tail of a text that is read in pieces."""
    lines: list[str] = []
    notes: list[list[str]] = []
    transcript = Transcript(TOKEN, lines.append, lambda words: notes.append(list(words)))
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        transcript.feed(data[start:end])
    transcript.end()
    return lines, notes, transcript.tail()


def test_notes_are_taken_out_of_the_output_wherever_it_is_cut() -> None:
    data = b"before" + note(TOKEN, "ready", 12, 3456) + b" and after\nsecond \xc3\xa9\n" + note(TOKEN, "peak", 7) + b"rest"
    expected = (
        ["before and after", "second é", "rest"],
        [["ready", "12", "3456"], ["peak", "7"]],
        "before and after\nsecond é\nrest",
    )
    for cut in range(len(data) + 1):
        assert read(data, [cut]) == expected
    assert read(data, list(range(1, len(data)))) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\0", b"\0\0\0", note("another token!!!", "ready", 1), f"\0wfengine {TOKEN} ".encode(),
        f"\0wfengine {TOKEN} x".encode(),
        f"\0wfengine {TOKEN} ".encode() + b"x" * (2 * NOTE_BYTES) + b"\0", b"\xff\xfe\n", b"\xc3",
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_note_is_output(data: bytes) -> None:
    for cuts in ([], [len(data) // 2], list(range(1, len(data)))):
        lines, notes, tail = read(data, cuts)
        assert notes == []
        expected = data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
        assert tail == expected or data == b"\xc3"
        assert len("".join(lines)) <= len(data) * 4


def test_random_output_in_random_pieces_is_the_same() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    source = random.Random(seed)
    pieces = [
        b"\0",
        b"\n",
        b"\r\n",
        b"wfengine",
        TOKEN.encode(),
        b"a" * 300,
        "ä€".encode(),
        note(TOKEN, "x", 1),
        b"\0wfengine ",
    ]
    for _ in range(300):
        data = b"".join(source.choices(pieces, k=source.randrange(1, 30)))
        cuts = sorted(source.sample(range(len(data) + 1), min(len(data), source.randrange(8))))
        assert read(data, cuts) == read(data, []), (data, cuts)


def test_only_the_end_is_kept_and_only_the_beginning_is_logged() -> None:
    data = b"".join(b"%07d\n" % number for number in range(LOG_BYTES // 4))
    lines, _, tail = read(data, list(range(0, len(data), 4096))[1:])
    assert len(tail) == TAIL_BYTES
    assert tail.encode() == data[-TAIL_BYTES:]
    assert lines[-1] == CUT
    assert lines[:-1] == [f"{number:07d}" for number in range(len(lines) - 1)]
    assert len("".join(lines)) <= LOG_BYTES


def test_a_line_without_end_is_logged_in_pieces() -> None:
    lines, _, tail = read(b"x" * (3 * LINE_BYTES + 1), [LINE_BYTES // 2])
    assert [len(line) for line in lines] == [LINE_BYTES] * 3 + [1]
    assert tail == "x" * TAIL_BYTES


def test_a_character_that_was_cut_at_the_beginning_of_the_tail_is_left_out() -> None:
    _, _, tail = read("é".encode() * TAIL_BYTES + b"x", [])
    assert tail == "é" * (TAIL_BYTES // 2 - 1) + "x"
