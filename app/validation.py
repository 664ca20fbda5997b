"""The words for invalid values."""

import re

_WORDS = {
    r"^Value error, ": "",
    r"^Input should": "the value must",
    r", unable to .*": "",
    r"\ba valid integer": "a whole number",
    r"\ba valid boolean": "true or false",
    r"\ba valid ": "a ",
    r"greater than or equal to": "at least",
    r"less than or equal to": "at most",
    r"^Field required$": "the field is missing",
}


def plain_message(message: str) -> str:
    """Returns a message of Pydantic in plain words, such as "the value must be at most 1"."""
    for pattern, words in _WORDS.items():
        message = re.sub(pattern, words, message)
    return message
