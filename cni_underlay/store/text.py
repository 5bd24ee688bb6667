"""Texts that are not UTF-8, in a database that takes nothing else, and back without a loss.

Environment variables and JSON escapes may carry lone surrogates (PEP 383); a netns path has to be found again byte by
byte. Such a text is kept as JSON behind the SUBSTITUTE character.
"""

import json

_MARK = "\x1a"


def stored(text: str) -> str:
    if text.isascii() and not text.startswith(_MARK):
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _MARK + json.dumps(text)
    return _MARK + json.dumps(text) if text.startswith(_MARK) else text


def restored(text: str) -> str:
    return str(json.loads(text[1:])) if text.startswith(_MARK) else text
