"""Damage done to good input: bytes changed, lost, doubled, moved and spliced; lengths and numbers that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

SIZE_LIMIT = 16 * 1024
NUMBERS = tuple(
    count.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for count in (0, 1, 0x7F, 2 ** (8 * size) - 1, 2 ** (8 * size - 1))
    for order in ("big", "little")
)
WORDS = (
    *(b"9" * 5000, b"-1", b"1e999", b"NaN", b"Infinity", b"-Infinity", b"null", b"true", b"0", b"", b"\x00"),
    *(b'"', b"[" * 200, b"{" * 200, b"]", b"}", b'{"a":1}', b"\\ud800", b"\\u0000", b"\\", b"../../etc/passwd"),
    *("\u0661".encode(), "\u00b2".encode(), "\u202e".encode(), b"\xff\xfe", b"\xed\xa0\x80", b"\xf0\x9f\x92\xa3"),
    *(b"127.0.0.1:1", b"[::1]:1", b"[fe80::1%eth0]:1", b"0.0.0.0:0", b"a" * 300, b"A" * 52, b"a" * 64),
    *(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80" * 10, b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x0c\x00"),
    *(b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"=", b"\n", b"\r\n", b"%", b":", b"-", b"_"),
)

Change = Callable[[bytearray, Random, Sequence[bytes]], None]


def mutate(seeds: Sequence[bytes], random: Random) -> bytes:
    """Return one of ``seeds`` after a few changes, most often one or two."""
    data = bytearray(random.choice(seeds))
    for _ in range(min(1 + int(random.expovariate(0.8)), 12)):
        random.choice(CHANGES)(data, random, seeds)
    return bytes(data[:SIZE_LIMIT])


def _flip(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _set(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    if data:
        data[random.randrange(len(data))] = random.randrange(256)


def _step(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    """Make a byte one more or less: lengths and tags are often next to what they should be."""
    if data:
        place = random.randrange(len(data))
        data[place] = (data[place] + random.choice((-1, 1))) % 256


def _lose(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    begin, end = _slice(data, random)
    del data[begin:end]


def _double(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    begin, end = _slice(data, random)
    data[begin:begin] = data[begin:end] * random.choice((1, 1, 1, 2, 40))


def _move(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    begin, end = _slice(data, random)
    piece = data[begin:end]
    del data[begin:end]
    place = random.randrange(len(data) + 1)
    data[place:place] = piece


def _truncate(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    del data[random.randrange(len(data) + 1) :]


def _number(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    number = random.choice(NUMBERS)
    place = random.randrange(len(data) + 1)
    data[place : place + len(number)] = number


def _word(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    """Put something strange in, in place of something or beside it."""
    begin, end = _slice(data, random)
    data[begin : random.choice((begin, end))] = random.choice(WORDS)


def _splice(data: bytearray, random: Random, seeds: Sequence[bytes]) -> None:
    other = random.choice(seeds)
    begin, end = _slice(other, random)
    place = random.randrange(len(data) + 1)
    data[place : random.choice((place, place + end - begin))] = other[begin:end]


def _slice(data: bytes | bytearray, random: Random) -> tuple[int, int]:
    begin = random.randrange(len(data) + 1)
    return begin, min(len(data), begin + random.choice((1, 2, 4, 8, 16, 64, 256)))


CHANGES: tuple[Change, ...] = (*(_flip, _set, _step, _lose, _double, _move, _truncate, _number, _word, _splice),)
