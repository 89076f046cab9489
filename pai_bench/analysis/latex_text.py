"""Conversion of plain text to LaTeX that pdflatex compiles with its default fonts."""

from __future__ import annotations

import unicodedata
from functools import cache

_MATH = {
    **{"·": "cdot", "×": "times", "÷": "div", "±": "pm", "∓": "mp", "≤": "leq", "≥": "geq", "≠": "neq", "≈": "approx"},
    **{"→": "rightarrow", "←": "leftarrow", "↔": "leftrightarrow", "⇒": "Rightarrow", "↑": "uparrow", "↓": "downarrow"},
    **{"∞": "infty", "∇": "nabla", "∂": "partial", "√": "surd", "✓": "surd", "∑": "sum", "∏": "prod", "∈": "in"},
    **{"∼": "sim", "∝": "propto", "⊙": "odot", "⊗": "otimes", "⊕": "oplus", "∘": "circ", "°": "circ", "ℓ": "ell"},
    **{"★": "star", "☆": "star", "•": "bullet", "∥": "parallel", "′": "prime", "∅": "emptyset", "¬": "neg", "−": "-"},
    **{"ε": "varepsilon", "φ": "varphi", "ς": "varsigma", "ϵ": "epsilon", "ϕ": "phi", "ϑ": "vartheta"},
}
_COMMANDS = (
    {symbol: f"\\{symbol}" for symbol in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", '"': "''"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {symbol: f"$\\{name}$" if name != "-" else "$-$" for symbol, name in _MATH.items()}
    | {"ß": r"\ss{}", "ø": r"\o{}", "Ø": r"\O{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}"}
    | {"ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "§": r"\S{}", "¶": r"\P{}", "©": r"\copyright{}", "£": r"\pounds{}"}
    | {"†": r"\dag{}", "‡": r"\ddag{}", "…": r"\dots{}", "–": "--", "—": "---", "‐": "-", "‑": "-", "\u00a0": "~"}
    | {"‘": "`", "’": "'", "“": "``", "”": "''", "„": ",,", "«": "``", "»": "''", "¡": "!`", "¿": "?`"}
)
_ACCENTS = {
    **{"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": "."},
    **{"\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b"},
}
"""LaTeX's accent by combining character."""

_GREEK = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu"),
    *("xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)
_GREEK_CAPITALS = ("gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "upsilon", "phi", "psi", "omega")
_GREEK_AS_LATIN = {"eta": "H", "rho": "P", "chi": "X"}
_CYRILLIC = {
    **{"а": "a", "б": "b", "в": "v", "г": "g", "д": "d", "е": "e", "ё": "e", "ж": "zh", "з": "z", "и": "i", "й": "i"},
    **{"к": "k", "л": "l", "м": "m", "н": "n", "о": "o", "п": "p", "р": "r", "с": "s", "т": "t", "у": "u", "ф": "f"},
    **{"х": "kh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "", "ы": "y", "ь": "", "э": "e", "ю": "yu"},
    **{"я": "ya", "є": "ye", "і": "i", "ї": "i", "ґ": "g"},
}
_TRANSLITERATED = _CYRILLIC | {"đ": "d", "ð": "d", "þ": "th", "€": "EUR", "№": "No."}


@cache
def escape(text: str) -> str:
    """Convert text to LaTeX: special characters, Greek and symbols to commands, other scripts transliterated."""
    # Composed first, so that a letter and its accent are one character.
    return "".join(_latex(character)[0] for character in unicodedata.normalize("NFC", text))


def is_transliterated(text: str) -> bool:
    """Return True if `escape` transliterates letters of the text, because the default fonts lack them."""
    return not text.isascii() and any(_latex(character)[1] for character in unicodedata.normalize("NFC", text))


def row_start(cell: str) -> str:
    r"""Protect an escaped cell at the start of a row, where LaTeX parses [ and * as arguments of \\ and \midrule."""
    return "{}" + cell if cell.startswith(("[", "*")) else cell


def _latex(character: str) -> tuple[str, bool]:
    """Convert a character to LaTeX; the flag is True for a transliteration."""
    if character in _COMMANDS:
        return _COMMANDS[character], False
    if character.isascii():
        return character if character.isprintable() else " ", False
    lower = character.lower()
    if lower in _TRANSLITERATED:
        text = _TRANSLITERATED[lower]
        return text if character == lower else text.capitalize(), True
    parts = unicodedata.normalize("NFD", character)
    base, marks = parts[0], parts[1:]
    name = unicodedata.name(base, "")
    if name.startswith("GREEK"):
        return _greek(name), False
    if marks and base.isascii():
        text = escape(base)
        for mark in marks:
            text = rf"\{_ACCENTS[mark]}{{{text}}}" if mark in _ACCENTS else text
        return text, any(mark not in _ACCENTS for mark in marks)
    plain = unicodedata.normalize("NFKD", character)
    if plain != character and base == character:  # a superscript two, a full-width letter
        return escape(plain), is_transliterated(plain)
    if unicodedata.category(character)[0] in "CMZ":
        return " " if character.isspace() else "", False
    name = unicodedata.name(character, "")
    if any(word in name for word in (" LETTER ", " SYLLABLE ")):
        return name.rpartition(" ")[2].lower(), True
    return f"U+{ord(character):04X}", True


def _greek(name: str) -> str:
    """Convert a Greek letter by its Unicode name; letters without a LaTeX command become the similar Latin letter."""
    letter = name.rpartition(" ")[2].lower().replace("lamda", "lambda")
    if "CAPITAL" in name:
        known = letter in _GREEK_CAPITALS
        return rf"$\{letter.capitalize()}$" if known else _GREEK_AS_LATIN.get(letter, letter[0].upper())
    return rf"$\{letter}$" if letter in _GREEK else letter[0]
