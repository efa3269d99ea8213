"""The signature of a webhook, ours and those that come in: HMAC-SHA256 over delivery id, time and body, in hexadecimal.

    X-Wfengine-Delivery: journal-3f2a-firing-12-0      the same over retries
    X-Wfengine-Timestamp: 1764300000                   seconds since 1970
    X-Wfengine-Signature: sha256=...                   over "DELIVERY.TIMESTAMP.BODY"

The id and the time are signed with the body, so that a delivery which somebody caught cannot be sent again with others.
"""

from __future__ import annotations

import hashlib
import hmac

DELIVERY = "X-Wfengine-Delivery"
TIMESTAMP = "X-Wfengine-Timestamp"
SIGNATURE = "X-Wfengine-Signature"
#: How far the time of a delivery may be from ours, in seconds, either way.
TOLERANCE_SECONDS = 300.0


def sign(secret: bytes, delivery: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a delivery."""
    signed = f"{delivery}.{timestamp}.".encode("utf-8", "replace") + body
    return "sha256=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()


def is_signed(secret: bytes, delivery: str, timestamp: str, body: bytes, signature: str) -> bool:
    """Tell whether a signature is right; takes as long whatever is wrong with it."""
    expected = sign(secret, delivery, timestamp, body).encode()
    return hmac.compare_digest(expected, signature.encode("utf-8", "replace"))


def is_recent(timestamp: str, now: float, tolerance_seconds: float = TOLERANCE_SECONDS) -> bool:
    """Tell whether a delivery's time is near enough to ours."""
    if not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > 12:
        return False
    return abs(now - int(timestamp)) <= tolerance_seconds
