"""Lone surrogates (U+D800 to U+DFFF): halves of characters that a Python string or a JSON escape can hold and that no
tokenizer and no UTF-8 can.
"""


def surrogate_problem(text: str) -> str | None:
    """What is wrong with a text that has one, in words that go after the name of the input."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        return (
            f"holds a lone surrogate (U+{code:04X}) at character {error.start + 1}, which is no text; "
            "send valid Unicode"
        )
    return None
