"""Which language a text is in, as far as its script and its smallest words tell.

No model and no word lists beyond a few dozen stop words: a text in letters of one script that is
used by one language (Hangul, Thai, ...) is told by it; Latin text by which language's stop words
it has most of, at least two; else only the script is known. Short texts often stay ``latin``.
"""

from __future__ import annotations

import re
from collections import Counter

LOOKED_AT = 2000
"""Characters of a text's beginning that are looked at."""

STOP_WORDS = {
    "en": "the and of to is in that it you for are with this have not be on as what i my do can",
    "de": "der die das und ist nicht ein eine zu den mit von ich sie auf für es im dem auch wie",
    "fr": "le la les et est un une des du que pas pour dans vous je il qui sur avec au ce ne",
    "es": "el la los y es un una de que no en por con para se lo como su las del más pero",
    "it": "il la che di e è un una non per con sono si del le dei nel come ma più questo",
    "pt": "o a os e é um uma de que não em por com para se do da no na como mais mas",
    "nl": "de het een en van is dat niet op te ik je voor met zijn die er maar ook naar",
}
WORDS = {language: frozenset(words.split()) for language, words in STOP_WORDS.items()}
SCRIPTS = {
    "hangul": (r"\uac00-\ud7af\u1100-\u11ff", "ko"),
    "kana": (r"\u3040-\u30ff", "ja"),
    "han": (r"\u4e00-\u9fff\u3400-\u4dbf", "han"),
    "cyrillic": (r"\u0400-\u04ff", "cyrillic"),
    "greek": (r"\u0370-\u03ff", "el"),
    "hebrew": (r"\u0590-\u05ff", "he"),
    "arabic": (r"\u0600-\u06ff\u0750-\u077f", "arabic"),
    "devanagari": (r"\u0900-\u097f", "devanagari"),
    "bengali": (r"\u0980-\u09ff", "bn"),
    "tamil": (r"\u0b80-\u0bff", "ta"),
    "thai": (r"\u0e00-\u0e7f", "th"),
}
"""Letters of a script, and what a text in it is called: a language where only one uses it."""

_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
_PATTERNS = {name: re.compile(f"[{letters}]") for name, (letters, _) in SCRIPTS.items()}
_WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """The language, the script where only that is known, or ``none`` without letters.

    Example:
        >>> language_of("Where is the key to my house?")
        'en'
        >>> language_of("Wo ist der Schlüssel? Ich finde ihn nicht.")
        'de'
        >>> language_of("Где ключ?")
        'cyrillic'
    """
    text = text[:LOOKED_AT]
    if not text.isascii():
        counts = {name: len(pattern.findall(text)) for name, pattern in _PATTERNS.items()}
        if counts["kana"] and counts["han"]:
            counts["kana"] += counts.pop("han")  # Japanese is written with both
        script = max(counts, key=counts.__getitem__)
        if counts[script] > len(_LATIN.findall(text)):
            return SCRIPTS[script][1]
    words = Counter(word.lower() for word in _WORD.findall(text))
    if not words:
        return "none"
    found = {name: sum(words[word] for word in stops) for name, stops in WORDS.items()}
    best = max(found, key=found.__getitem__)
    others = [count for name, count in found.items() if name != best]
    return best if found[best] >= 2 and found[best] > max(others) else "latin"
