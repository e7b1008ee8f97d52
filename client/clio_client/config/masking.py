"""Scrubbing credentials from a text that is shown otherwise (a path, the name of a pool).

Second line of defence behind `known_keys`,
which decides what is shown at all. It masks rather too much than too
little: user, password and query of URLs,
webhooks, `name=value`, `name: value` and `--name value` where the name
looks secret, Authorization headers, PEM private keys, and tokens by the prefixes their issuers give them.
"""

from __future__ import annotations

import re

MASK = "<secret>"

# Anywhere in a name, once it is lower case without separators.
_STEMS = (
    "password", "passwd", "passphrase", "passcode", "secret", "credential", "apikey", "accesskey",
    "privatekey", "authkey", "signingkey", "encryptionkey", "sharedkey", "masterkey", "sessionkey",
    "accountkey", "storagekey", "servicekey", "sshkey", "hmackey", "keytab", "signature",
)  # fmt: skip
# As a word of a name.
_WORDS = frozenset(
    {"pw", "auth", "authorization", "authentication", "oauth", "oauth2", "bearer", "jwt", "cookie", "sas",
     "key", "keys", "sig", "otp", "pin", "pat", "cred", "creds"}
)  # fmt: skip
# As the end of a word of a name (pass, dbpass, authtoken), but for English words.
_ENDINGS = ("pass", "token", "tokens", "pwd", "psk")
_ENGLISH = frozenset({"bypass", "compass", "overpass", "surpass"})

_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")
# All patterns take linear time: they begin only at a boundary, and what they run over is bounded.
# Greedy to the last '@' before the path; or user:password@ with a '/' in the password (but not host:80/x@y).
_URL = re.compile(r"(?<=://)(?:[^\s/?#]{0,512}@|[^\s/:@]{0,512}:(?![0-9]+(?:/|$))[^\s@]{0,512}@)")
_QUERY = re.compile(r"(?P<url>://[^\s?#]{0,512})[?#][^\s\"']+")
_PATH = re.compile(r"(?P<host>://[^\s/]{0,255}/)[^\s\"']+")
_WEBHOOK = re.compile(r"hook|/bot[0-9]{6,}:|://chat\.googleapis\.com/", re.IGNORECASE)
_NAME = re.compile(r"(?<![A-Za-z0-9_.-])[A-Za-z0-9_.-]{1,256}")
_VALUE = re.compile(
    r"(?P<between>[\"']?(?:\s*=\s*|\s*:\s*|\s+))(?P<value><secret>|\"[^\"]*\"|'[^']*'|[^\s&;,]+)"
)
_USER = re.compile(r"(?<!\S)(?P<flag>-u\s*|--user[ =])[^\s:]{1,256}:[^\s]+")
_HEADER = re.compile(r"\b(?P<kind>Bearer|Basic)\s+[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
# What issuers say their tokens begin with, so that scanners find them.
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"gh[pousr]_|github_pat_|glpat-|gloas-|gldt-|glrt-|glsa_|xox[abeoprs]-|xapp-|A(?:KIA|SIA)(?=[A-Z0-9]{12})|"
    r"sk-|[srp]k_(?:live|test)_|whsec_|AIza|ya29\.|eyJ(?=[A-Za-z0-9_-]{8,}\.)|hf_|npm_|pypi-|dop_v1_|SG\.|"
    r"hv[sb]\.|shp(?:at|ss)_|tskey-|dckr_pat_|xkeysib-|lin_api_|ATATT|AGE-SECRET-KEY-|sq0[a-z]{3}-|rubygems_"
    r")[A-Za-z0-9_.=+/-]{8,}"
)


def is_secret_name(name: str) -> bool:
    """Whether what has this name is likely to be a secret (any case, camelCase, '-', '_' or '.')."""
    words = [word.lower() for word in _BOUNDARY.split(name) if word]
    compact = "".join(words)
    return any(stem in compact for stem in _STEMS) or any(
        word in _WORDS or (word.endswith(_ENDINGS) and word not in _ENGLISH) for word in words
    )


def mask_text(text: str) -> str:
    """`text` with everything that looks like a credential as ``<secret>``; masking twice changes nothing."""
    text = _PEM.sub(MASK, text)
    text = _URL.sub(f"{MASK}@", text)
    text = _PATH.sub(lambda url: f"{url['host']}{MASK}" if _WEBHOOK.search(url[0]) else url[0], text)
    text = _QUERY.sub(rf"\g<url>?{MASK}", text)
    text = _USER.sub(rf"\g<flag>{MASK}", text)
    text = _HEADER.sub(rf"\g<kind> {MASK}", text)
    text = _TOKEN.sub(MASK, text)
    return _mask_named(text)


def _mask_named(text: str) -> str:
    done: list[str] = []
    at = 0
    for name in _NAME.finditer(text):
        if name.start() < at or not is_secret_name(name[0]):
            continue
        found = _VALUE.match(text, name.end())
        if found is not None:
            done += (text[at : name.end()], found["between"], MASK)
            at = found.end()
    return "".join((*done, text[at:]))
