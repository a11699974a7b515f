"""The kinds, colours, settings and times a scene can have, and the words for them."""

from __future__ import annotations

KINDS = ("balloon", "boat", "lighthouse", "windmill")
COLOURS = ("red", "yellow", "green", "blue", "purple")
SETTINGS = ("mountains", "hills", "desert", "sea", "forest")
TIMES = ("day", "sunset", "night", "dawn")

RGB = {
    "red": (0.86, 0.09, 0.09),
    "yellow": (1.00, 0.80, 0.06),
    "green": (0.08, 0.62, 0.20),
    "blue": (0.08, 0.26, 0.88),
    "purple": (0.54, 0.14, 0.72),
}
"""Each named colour as it is in full daylight."""

KIND_WORDS = {
    "balloon": "hot-air balloon",
    "boat": "sailing boat",
    "lighthouse": "lighthouse",
    "windmill": "windmill",
}
SETTING_WORDS = {
    "mountains": "snowy mountains",
    "hills": "green hills",
    "desert": "desert dunes",
    "sea": "a calm sea",
    "forest": "a pine forest",
}
GROUND_WORDS = {
    "mountains": ("snow and rocks", "a snowy mountain side"),
    "hills": ("a green meadow", "grass on a hill"),
    "desert": ("desert sand", "sand dunes"),
    "sea": ("calm water", "water with small waves"),
    "forest": ("pine trees", "the edge of a pine forest"),
}
TIME_WORDS = {
    "day": ("by day", "on a bright day"),
    "sunset": ("at sunset", "in the evening"),
    "night": ("at night", "on a starry night"),
    "dawn": ("at dawn", "in the early morning"),
}
SKY_WORDS = {
    "day": ("blue sky", "bright sky"),
    "sunset": ("evening sky", "sunset sky"),
    "night": ("night sky", "starry sky"),
    "dawn": ("morning sky", "pale dawn sky"),
}
SETTINGS_OF_KIND = {
    "balloon": SETTINGS,
    "boat": ("sea",),
    "lighthouse": ("sea", "hills", "mountains", "desert"),
    "windmill": ("hills", "mountains", "desert", "sea", "forest"),
}


def place(kind: str, setting: str) -> str:
    """The preposition and the setting: 'over snowy mountains', 'on a calm sea'."""
    if kind == "balloon":
        preposition = "over"
    elif kind == "boat":
        preposition = "on"
    elif setting == "sea":
        preposition = "by"
    else:
        preposition = {"mountains": "below", "forest": "by"}.get(setting, "among")
    return f"{preposition} {SETTING_WORDS[setting]}"


def prompt(kind: str, colour: str, setting: str, time: str, variant: int = 0) -> str:
    """The full caption of a scene, as the training captions phrase it (`variant` 0..3)."""
    thing = f"a {colour} {KIND_WORDS[kind]} {place(kind, setting)}"
    when = TIME_WORDS[time][variant % 2]
    return f"{when}, {thing}" if variant >= 2 else f"{thing} {when}"


def vocabulary() -> list[str]:
    """Every word that a caption can use, sorted (hyphenated words count as one)."""
    texts = [*COLOURS, *KIND_WORDS.values(), *SETTING_WORDS.values()]
    for group in (GROUND_WORDS, TIME_WORDS, SKY_WORDS):
        texts += [text for pair in group.values() for text in pair]
    texts += ["a an over on by below among and in with clouds clear the sun moon sky"]
    return sorted({word for text in texts for word in text.split()})


CAPTION_WORDS = tuple(vocabulary())
