"""Masking of secrets in a configuration before any of it is shown.

Masks rather too much than too little: by the name of a key (and then everything below it), credentials in
URLs, `name=value` inside strings, `{name: ..., value: ...}` pairs, Authorization headers, PEM private keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "<secret>"

# Anywhere in a name, once it is lower case without separators.
_STEMS = (
    "password", "passwd", "passphrase", "passcode", "secret", "credential", "apikey", "accesskey",
    "privatekey", "authkey", "signingkey", "encryptionkey", "sharedkey", "masterkey", "sessionkey",
    "accountkey", "storagekey", "servicekey", "sshkey", "hmackey", "accesstoken", "authtoken", "apitoken",
    "htpasswd", "keytab",
)  # fmt: skip
# As a word of a name.
_WORDS = frozenset(
    {"pass", "pwd", "pw", "auth", "authorization", "authentication", "oauth", "oauth2", "bearer", "jwt",
     "cookie", "sas", "passwds"}
)  # fmt: skip

_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")
# All patterns take linear time: they begin only at a boundary, and what they run over is bounded.
# Greedy to the last '@' before the path; or user:password@ with a '/' in the password (but not host:80/x@y).
_URL = re.compile(r"(?<=://)(?:[^\s/?#]*@|[^\s/:@]*:(?![0-9]+(?:/|$))[^\s@]{0,512}@)")
_PAIR = re.compile(
    r"(?<![A-Za-z0-9_.-])(?P<name>[A-Za-z0-9_.-]+)(?P<equals>\s*=\s*|\s*:\s+)"
    r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s&;,]+)"
)
_HEADER = re.compile(r"\b(?P<kind>Bearer|Basic)\s+[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_NAME_KEYS = ("name", "key", "env")
_VALUE_KEYS = ("value", "val", "default")


def is_secret_name(name: str) -> bool:
    """Whether a key of this name is likely to hold a secret (any case, camelCase, '-', '_' or '.')."""
    words = [word.lower() for word in _BOUNDARY.split(name) if word]
    compact = "".join(words)
    return any(stem in compact for stem in _STEMS) or any(
        word in _WORDS or word.endswith(("token", "tokens")) for word in words
    )


def mask_secrets(document: Any) -> Any:
    """A copy of `document` (mappings, lists, scalars) with every value that looks secret as ``<secret>``.

    Keys and the shape stay. Everything below a secret-named key is masked, null and numbers too.
    """
    if isinstance(document, Mapping):
        named_secret = any(
            str(key).lower() in _NAME_KEYS and isinstance(value, str) and is_secret_name(value)
            for key, value in document.items()
        )
        return {
            key: _mask_all(value)
            if is_secret_name(str(key)) or (named_secret and str(key).lower() in _VALUE_KEYS)
            else mask_secrets(value)
            for key, value in document.items()
        }
    if isinstance(document, (list, tuple)):
        return [mask_secrets(value) for value in document]
    if isinstance(document, (set, frozenset)):
        return [mask_secrets(value) for value in sorted(document, key=str)]
    return mask_text(document) if isinstance(document, str) else document


def mask_text(text: str) -> str:
    """`text` with credentials in URLs, `password=...` pairs, Authorization values and PEM keys masked."""
    text = _PEM.sub(MASK, text)
    text = _URL.sub(f"{MASK}@", text)
    text = _HEADER.sub(rf"\g<kind> {MASK}", text)
    return _PAIR.sub(
        lambda match: (
            f"{match['name']}{match['equals']}{MASK}" if is_secret_name(match["name"]) else match[0]
        ),
        text,
    )


def _mask_all(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _mask_all(below) for key, below in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_mask_all(below) for below in value]
    return MASK
