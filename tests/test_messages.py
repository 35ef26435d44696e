"""Every error, warning and notice, as one list: pytest -s tests/test_messages.py prints it.

Each says what is wrong, with the value, and what to do; here is held what can be held of that.
"""

import re

import pytest
from helpers.messages import messages

_MOST_CHARACTERS = 330
FOUND = list(messages())


def test_all_are_printed() -> None:
    assert len(FOUND) > 250
    for name, line, kind, text in FOUND:
        print(f"{kind:18} {name}:{line}\n    {text}")


@pytest.mark.parametrize("found", FOUND, ids=[f"{name}:{line}" for name, line, *_ in FOUND])
def test_a_message_is_one_sentence(found: tuple[str, int, str, str]) -> None:
    text = found[3]
    assert len(text) <= _MOST_CHARACTERS
    assert text == text.strip()
    assert not text.endswith((".", "!", ":", ";", ","))
    assert not re.search(r"\b(please|sorry|oops|invalid|illegal|failed to)\b", text, re.I)
    assert not re.search(r"[a-z]\. [A-Z]", text), "two sentences"
    assert "  " not in text
    assert not text[0].isupper() or text.split()[0] in NAMES, "it follows a colon"


NAMES = {"VIDRESTORE_CUDA", "GPEN", "Ray", "InsightFace", "DPX", "Triton", "Triton's"}
