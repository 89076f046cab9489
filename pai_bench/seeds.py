"""One seed for each purpose, all derived from the cell's."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, purpose: str, *more: int) -> int:
    """The seed in [0, 2^64) of the draws for `purpose` ("init", "order", …) and `more` (the epoch, the round).

    A pure function that spreads over all 64 bits: neighbouring seeds and other purposes share no stream.
    """
    text = "/".join([str(int(seed)), purpose.replace("/", "//"), *(str(int(number)) for number in more)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
