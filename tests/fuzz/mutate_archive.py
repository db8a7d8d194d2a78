# SPDX-License-Identifier: MIT
"""Mutations of archives of crnn compress: of bytes, and of the header's fields, with a right check sum or without."""

import hashlib
import random
import zlib
from dataclasses import dataclass, replace

KEPT, RENEWED = "kept", "renewed"  # what became of the digest of the content

MAGIC = b"\x8ecrz"
SIZES = [0, 1, 2, 127, 128, 300, 2**14, 2**18, 2**20, 2**24, 2**31, 2**32, 2**40, 2**55, 2**56 - 1, 2**56, 2**63]


@dataclass(frozen=True)
class Fields:
    """An archive taken apart, as docs/compression.md describes it; written from there."""

    version: int
    method: int
    predictor: int
    size: int
    alphabet: bytes  # as it is stored
    model: bytes  # and the digest of the text before the content
    digest: bytes
    payload: bytes

    @staticmethod
    def of(archive: bytes) -> "Fields":
        version, method, predictor = archive[4:7]
        at, size, shift = 7, 0, 0
        while True:
            size |= (archive[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if archive[at - 1] < 128:
                break
        alphabet = b""
        if method & 1:
            count = archive[at] + 1
            length = 1 + (0 if count == 256 else count if count < 32 else 32)
            alphabet, at = archive[at : at + length], at + length
        model = archive[at : at + 16 * (method >> 4 & 1) + 16 * (method >> 5 & 1)] if method & 48 else b""
        at += len(model)
        return Fields(version, method, predictor, size, alphabet, model, archive[at : at + 8], archive[at + 12 :])

    def to_bytes(self, sealed: bool) -> bytes:
        """The archive; ``sealed``: with a right check sum of the header."""
        size, digits = self.size, []
        while size >= 128:
            digits.append(size & 127 | 128)
            size >>= 7
        head = MAGIC + bytes([self.version, self.method, self.predictor, *digits, size])
        head += self.alphabet + self.model + self.digest
        return head + (zlib.crc32(head) ^ (not sealed)).to_bytes(4, "little") + self.payload


def change_fields(rng: random.Random, fields: Fields, other: Fields) -> Fields:
    """Change one field."""
    payload, at = fields.payload, rng.randrange(len(fields.payload) + 1)
    kind = rng.randrange(9)
    if kind == 0:
        return replace(fields, size=rng.choice([*SIZES, max(fields.size + rng.randrange(-3, 4), 0), other.size]))
    if kind == 1:
        return replace(fields, method=rng.choice([0, 1, 2, 16, 17, 18, 33, 49, 255]))
    if kind == 2:
        return replace(fields, **{rng.choice(["version", "predictor"]): rng.randrange(256)})
    if kind == 3:
        changed = bytearray(fields.alphabet or b"\0")
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return replace(fields, alphabet=rng.choice([bytes(changed), other.alphabet, rng.randbytes(33)]))
    if kind == 4:
        return replace(fields, model=rng.choice([b"", other.model, rng.randbytes(16)]))
    if kind == 5:
        return replace(fields, digest=rng.randbytes(8))
    if kind == 6:
        return replace(fields, payload=rng.choice([payload[:at], payload + rng.randbytes(5), rng.randbytes(at), b""]))
    if kind == 7:
        return replace(fields, payload=payload[:at] + other.payload[at:])
    changed = bytearray(payload or b"\0")
    for _ in range(rng.choice([1, 1, 5])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return replace(fields, payload=bytes(changed))


def change_bytes(rng: random.Random, archive: bytes) -> bytes:
    """Change bytes anywhere."""
    changed = bytearray(archive)
    at = rng.randrange(len(changed))
    kind = rng.randrange(4)
    if kind == 0:
        del changed[at:]
    elif kind == 1:
        changed[at:at] = rng.randbytes(rng.choice([1, 4, 50]))
    elif kind == 2:
        del changed[at : at + rng.choice([1, 4, 50])]
    else:
        changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def mutate_archive(rng: random.Random, archive: bytes, other: bytes) -> tuple[bytes, str]:
    """A mutation of an archive, and what became of the digest of its content."""
    if rng.randrange(4) == 0:
        return change_bytes(rng, archive), KEPT
    fields = Fields.of(archive)
    for _ in range(rng.choice([1, 1, 2, 3])):
        fields = change_fields(rng, fields, Fields.of(other))
    renewed = rng.randrange(3) == 0
    if renewed and not fields.method:
        fields = replace(fields, digest=hashlib.blake2b(fields.payload, digest_size=8).digest())
    return fields.to_bytes(sealed=rng.randrange(8) > 0), RENEWED if renewed else KEPT
