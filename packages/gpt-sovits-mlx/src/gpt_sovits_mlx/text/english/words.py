"""English words that aren't written as they are said: abbreviations, acronyms, addresses of the web and of e-mail."""

from __future__ import annotations

import re
from re import Match

from ..resources import word_list
from .lexicon import words

# Words that the dictionary lacks or reads in another sense.
OWN_WORDS = {
    "ai": "EY1 AY1",
    "covid": "K OW1 V IH0 D",
    "gif": "G IH1 F",
    "json": "JH EY1 S AH0 N",
    "kilohertz": "K IH1 L AH0 HH ER2 T S",
    "megahertz": "M EH1 G AH0 HH ER2 T S",
    "gigahertz": "G IH1 G AH0 HH ER2 T S",
    "miz": "M IH1 Z",
    "openai": "OW1 P AH0 N EY1 AY1",
    "pytorch": "P AY1 T AO2 R CH",
    "emoji": "IH0 M OW1 JH IY0",
    "selfie": "S EH1 L F IY0",
    "vlog": "V L AA1 G",
    "anime": "AE1 N AH0 M EY2",
}
_TITLES = {
    "Mr": "Mister",
    "Mrs": "Missus",
    "Ms": "Miz",
    "Prof": "Professor",
    "Gen": "General",
    "Col": "Colonel",
    "Lt": "Lieutenant",
    "Capt": "Captain",
    "Sgt": "Sergeant",
    "Cpl": "Corporal",
    "Rev": "Reverend",
    "Hon": "Honorable",
    "Gov": "Governor",
    "Sen": "Senator",
    "Rep": "Representative",
    "Pres": "President",
    "Mt": "Mount",
    "Ft": "Fort",
}
_SHORTENED = {
    "vs": "versus",
    "etc": "et cetera",
    "approx": "approximately",
    "dept": "department",
    "est": "established",
    "inc": "incorporated",
    "ltd": "limited",
    "corp": "corporation",
    "co": "company",
    "bros": "brothers",
    "jr": "junior",
    "sr": "senior",
    "ave": "avenue",
    "blvd": "boulevard",
    "rd": "road",
    "hwy": "highway",
    "apt": "apartment",
    "mfg": "manufacturing",
    "govt": "government",
    "assn": "association",
    "univ": "university",
    "intl": "international",
    "misc": "miscellaneous",
    "tel": "telephone",
}
_NUMBERED = {
    "no": "number",
    "nos": "numbers",
    "vol": "volume",
    "fig": "figure",
    "figs": "figures",
    "eq": "equation",
    "sec": "section",
    "ch": "chapter",
    "pp": "pages",
    "p": "page",
    "art": "article",
    "ver": "version",
    "para": "paragraph",
}
_WEEKDAYS = {"Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday"}
_WEEKDAYS |= {"Thur": "Thursday", "Thurs": "Thursday", "Fri": "Friday"}
# What follows a full stop that ends a sentence too: nothing, or a capital letter after a space.
_ENDS = r"(?=\s*$|\s+[\"'(]?[A-Z])"

# Acronyms that are said as words.
_SAID = frozenset(
    word_list(
        "nasa nato unesco unicef opec fifa aids covid sars nafta swat darpa osha scuba nasdaq ikea lego visa asap ram "
        "rom pin sim gif jpeg json laser radar sonar captcha wasp nimby yolo epcot ascii bios cad gan lan wan vlan "
        "soho noho tribeca pepsi taser basic cobol fortran java bart lora bert yaml toml pandas"
    )
)
# Words of two or three letters that are words in capitals too; other short runs of capitals are read letter by letter.
_SHORT_WORDS = frozenset(
    word_list(
        "the and not you are for but all can has her was one our out day get him his how man new now old see two way "
        "boy did let put say she too use yes no go to is of in on at by my we he be do so up if an me or had any off "
        "own why ask big buy end far few got run set sit ten top try win yet am as bad car cat dog eat fun god hot "
        "job law mom dad red sun war its who"
    )
) - {"am", "its", "who", "war", "sun", "law"}
_AMBIGUOUS = frozenset(("it", "us", "who", "am", "or", "in"))
_ALL_CAPITALS = re.compile(
    r"(?<![A-Za-z'])[A-Z]{2,}+(?:'?s)?(?![A-Za-z'])|(?<![A-Za-z'])[A-Z]+(?:'[A-Z]+)(?![A-Za-z'])"
)
_RUN = re.compile("[A-Za-z]++")
_HUMPS = re.compile(r"[A-Z]{2,}(?=[A-Z][a-z])|[A-Z]{2,}(?![a-z])|[A-Z]?[a-z]+|[A-Z]")

_SPOKEN_SIGNS = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "@": "at", ":": "colon", "?": "question mark",
    "=": "equals", "&": "and", "#": "hash", "%": "percent", "+": "plus", "~": "tilde",
}  # fmt: skip
_DOMAINS = "com|org|net|edu|gov|io|ai|app|dev|co|uk|cn|de|jp|fr|eu|info|tv|me"
_FILES = (
    "txt|pdf|py|md|json|jpe?g|png|gif|mp[34]|wav|flac|csv|tsv|html?|css|exe|zip|tar|gz|docx?|xlsx?|pptx?|js|ts|cpp|ya?ml|"
    "toml|sh|log|bin|npz|pth|ckpt|safetensors|onnx"
)
_ADDRESS = re.compile(
    r"(?i)(?<![\w@.])(?:https?://[^\s<>\"']+"
    r"|www\.[^\s<>\"']+"
    r"|[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"
    rf"|[a-z0-9-]{{1,63}}(?:\.[a-z0-9-]{{1,63}}){{0,8}}\.(?:{_DOMAINS})\b(?:/[^\s<>\"']*)?"
    rf"|[a-z][\w-]{{0,63}}(?:\.[\w-]{{1,63}}){{0,8}}\.(?:{_FILES})\b)"
)


def spell(letters: str) -> str:
    """Letters set apart, to be read by their names: "gpu" -> "G P U"."""
    return " ".join(letters.upper())


def addresses(text: str) -> str:
    """Web and e-mail addresses and names of files, with their signs in words: "a@b.com" -> "a at b dot com"."""
    return _ADDRESS.sub(_address, text)


def _address(match: Match[str]) -> str:
    whole = match[0]
    address = whole.rstrip(".,!?;:)]}…")
    tail = whole[len(address) :]
    address = re.sub(r"(?i)^https?://", "", address).rstrip("/")
    address = re.sub(r"(?i)^www\.", "W W W.", address)
    pieces = []
    for piece in re.findall(r"[A-Za-z]+|\d|\s|.", address, re.DOTALL):
        pieces.append(_SPOKEN_SIGNS.get(piece, piece))
    return f" {' '.join(' '.join(pieces).split())}{tail}"


def abbreviations(text: str) -> str:
    """Titles, shortened words and initials in full; their full stop stays only where it ends a sentence too."""
    text = re.sub(r"(?i)\bi\.\s?e\.", "that is", text)
    text = re.sub(r"(?i)\be\.\s?g\.", "for example", text)
    text = re.sub(r"(?i)\ba\.k\.a\.", "A K A", text)
    text = re.sub(r"\b([CF])#", r"\1 sharp", text)
    text = re.sub(r"\bw/o\b", "without", text)
    text = re.sub(r"\bw/(?=\s?\w)", "with ", text)
    text = re.sub(r"\bPh\.?\s?D\b\.?", "P H D", text)
    text = re.sub(r"\bDr\.(?=\s+[A-Z])|^Dr\b\.?|\bDr(?=\s+[A-Z])", "Doctor", text)
    text = re.sub(r"(?<=[a-z] )Dr\.", "Drive", text)
    text = re.sub(r"((?:[A-Z][a-z]{1,20}|\d(?:st|nd|rd|th)) )St\b\.?" + f"({_ENDS}|(?=[\\s,;!?])|$)", r"\1Street", text)
    text = re.sub(r"\bSt\.?(?=\s+[A-Z])", "Saint", text)
    text = re.sub(rf"\b({'|'.join(_TITLES)})\.(?=\s+[A-Z])", lambda m: _TITLES[m[1]], text)
    text = re.sub(r"\b(Mr|Mrs|Ms)\b\.?", lambda m: _TITLES[m[1]], text)
    text = re.sub(rf"\b({'|'.join(_WEEKDAYS)})\.(?=[\s,])", lambda m: _WEEKDAYS[m[1]], text)
    text = re.sub(rf"(?i)\b({'|'.join(_NUMBERED)})\.\s?(?=\d)", lambda m: f"{_NUMBERED[m[1].lower()]} ", text)
    text = re.sub(
        rf"\b((?i:{'|'.join(_SHORTENED)}))\.({_ENDS})?",
        lambda m: _SHORTENED[m[1].lower()] + ("." if m[2] is not None else ""),
        text,
    )
    text = re.sub(r"\b(vs|etc)\b", lambda m: _SHORTENED[m[1]], text)
    text = re.sub(r"(?<![A-Za-z.])(?:[A-Z]\. ){1,3}(?=[A-Z][a-z])", _name_initials, text)
    text = re.sub(r"(?<![A-Za-z.])([A-Z])\.(?= [a-z])", r"\1", text)
    return re.sub(r"(?<![A-Za-z.])((?:[A-Za-z]\.){2,12})('s)?" + f"({_ENDS})?", _initials, text)


def _name_initials(match: Match[str]) -> str:
    """Initials in a name end no sentence: several of them, or one after a capitalised word or at the start."""
    before = match.string[max(0, match.start() - 24) : match.start()].split()
    in_name = len(match[0]) > 3 or not before or before[-1][0].isupper()
    return match[0].replace(".", "") if in_name else match[0]


def _initials(match: Match[str]) -> str:
    ends = match[3] is not None and not match[2]
    return spell(match[1].replace(".", "")) + (match[2] or "") + ("." if ends else "")


def capitals(text: str) -> str:
    """Acronyms letter by letter, words in capitals as words, and joined words apart: "OpenAI's GPUs" -> "Open A I's
    …".
    """
    letters = sum(c.isalpha() for c in text)
    shouted = letters > 12 and sum(c.isupper() for c in text) > 0.8 * letters
    text = _ALL_CAPITALS.sub(lambda m: _capitals(m[0], shouted=shouted), text)
    return _RUN.sub(_mixed, text)


def _capitals(run: str, *, shouted: bool) -> str:
    base = re.sub("'?s$", "", run)
    ending = "'s" if len(base) < len(run) else ""
    word = base.lower()
    if "'" in word or word in _SAID or (word in _SHORT_WORDS and word not in _AMBIGUOUS):
        return word + ending
    if shouted and word in words():
        return word + ending
    if len(word) > 3 and (word in words() or len(word) > 6) and re.search("[aeiouy]", word) and not _is_spelled(word):
        return word + ending
    return spell(base) + ending


def _is_spelled(word: str) -> bool:
    """Whether the dictionary itself reads the word letter by letter: as many stressed vowels as letters, or nearly."""
    phones = words().get(word, "").split()
    return sum(phone[-1] in "12" for phone in phones) >= len(word)


def _mixed(match: Match[str]) -> str:
    word = match[0]
    if word[1:].islower() or len(word) == 1 or word.islower() or word.isupper():
        return word
    plain = word.lower()
    if len(word) > 2 and (plain in words() or plain.removesuffix("s") in words() or plain in OWN_WORDS):
        return word
    return " ".join(capitals(hump) if len(hump) > 1 and hump.isupper() else hump for hump in _HUMPS.findall(word))
