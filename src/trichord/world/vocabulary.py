"""The vocabulary of the world: the values of the factors, sentences, and the errors of a recognizer.

All words are common English words in lowercase without apostrophes, so that tables of word vectors contain them.
"""

from __future__ import annotations

import numpy as np

# Each name is followed by less common words for the same thing.
OBJECTS: dict[str, tuple[str, ...]] = {
    "tomato": ("red tomato",),
    "onion": ("purple onion",),
    "carrot": ("orange carrot",),
    "fish": ("blue fish", "trout"),
    "bread": ("loaf", "brown bread"),
    "cheese": ("yellow cheese",),
    "plank": ("board", "wooden plank"),
    "bolt": ("steel bolt", "screw"),
    "brick": ("red brick",),
    "pot": ("cooking pot", "pan"),
    "fern": ("plant", "green fern"),
    "cloth": ("towel", "pink cloth"),
    "boot": ("shoe", "leather boot"),
    "candle": ("white candle",),
    "melon": ("green melon",),
    "wheel": ("tire", "black wheel"),
}
TOOLS: dict[str, tuple[str, ...]] = {
    "knife": ("blade",),
    "spoon": ("wooden spoon", "ladle"),
    "hammer": ("mallet",),
    "brush": ("big brush",),
    "saw": ("hand saw",),
    "jug": ("pitcher", "blue jug"),
    "roller": ("white roller",),
    "scissors": ("shears",),
    "fork": ("silver fork",),
    "wrench": ("spanner",),
}
# Pairs of the plain form and the -ing form. The first pair is the most common one.
ACTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "cut": (("cut", "cutting"), ("slice", "slicing"), ("chop", "chopping")),
    "stir": (("stir", "stirring"), ("mix", "mixing"), ("swirl", "swirling")),
    "pour": (("pour oil on", "pouring oil on"), ("pour oil over", "pouring oil over"), ("drizzle", "drizzling")),
    "pound": (("pound", "pounding"), ("hit", "hitting"), ("smash", "smashing")),
    "paint": (("paint", "painting"), ("color", "coloring"), ("coat", "coating")),
    "roll": (("roll", "rolling"), ("push", "pushing"), ("spin", "spinning")),
    "wash": (("wash", "washing"), ("scrub", "scrubbing"), ("rinse", "rinsing")),
    "heat": (("heat", "heating"), ("toast", "toasting"), ("burn", "burning")),
}
PLACES: dict[str, tuple[str, ...]] = {
    "kitchen": ("in the kitchen",),
    "workshop": ("in the workshop",),
    "garden": ("out in the garden",),
    "garage": ("in my garage",),
    "beach": ("down at the beach",),
}
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
            "twelfth")  # fmt: skip
# The duration in seconds of one stroke of the action, in the picture and in the sound.
PERIOD_S = {"cut": 0.5, "stir": 1.2, "pour": 2.0, "pound": 0.8, "paint": 1.0, "roll": 2.4, "wash": 0.3, "heat": 3.0}
USUAL_WORD = 0.75  # probability of the most common word

_WITH_TOOL = (
    "now {verb} {object} with {tool}",
    "next we {verb} {object} with {tool}",
    "so you want to {verb} {object} with {tool}",
    "take {tool} and {verb} {object}",
    "then i grab {tool} and {verb} {object}",
    "i am {verbing} {object} with {tool}",
    "go ahead and {verb} {object} with {tool}",
    "here i am just {verbing} {object} using {tool}",
    "with {tool} we are {verbing} {object}",
    "you can use {tool} to {verb} {object}",
    "keep {verbing} {object} using {tool}",
    "we start {verbing} {object} with {tool}",
)
_WITHOUT_TOOL = (
    "now we {verb} {object} like this",
    "go ahead and {verb} {object}",
    "keep {verbing} {object} until it looks good",
    "so i am just {verbing} {object} here",
    "then you {verb} {object} a little more",
    "what we do is {verb} {object}",
)
_CHATTER = (
    "thanks for watching and see you next time",
    "if you like this video please subscribe",
    "my mother showed me this when i was young",
    "leave me a comment down below",
    "it has been raining all day around here",
    "this is my favorite part of the week",
    "do not worry if yours looks different",
    "i get asked about this all the time",
    "we are almost done so stay with me",
    "sorry about the noise in the back",
    "the dog wants to come in again",
    "let me know how it went for you",
)
_FILLERS = ("uh", "um", "like", "so", "well", "okay", "just", "yeah")

# The words that the recognizer writes instead of a word. A word that is not listed here is dropped.
CONFUSIONS: dict[str, tuple[str, ...]] = {
    "tomato": ("potato", "tomatoes"), "onion": ("union", "opinion"), "carrot": ("parrot", "carry"),
    "fish": ("dish", "fresh"), "bread": ("bred", "red"), "cheese": ("cheap", "trees"), "plank": ("blank", "plant"),
    "bolt": ("bold", "boat"), "brick": ("break", "trick"), "pot": ("part", "spot"), "fern": ("firm", "turn"),
    "cloth": ("close", "clock"), "boot": ("boat", "but"), "candle": ("handle", "cattle"), "melon": ("lemon", "million"),
    "wheel": ("will", "feel"), "knife": ("life", "nice"), "spoon": ("soon", "moon"), "hammer": ("summer", "hamper"),
    "brush": ("rush", "crush"), "saw": ("so", "sore"), "jug": ("jack", "dog"), "roller": ("ruler", "color"),
    "scissors": ("sisters", "caesar"), "fork": ("four", "pork"), "wrench": ("french", "ranch"), "cut": ("got", "cat"),
    "slice": ("slight", "lies"), "chop": ("shop", "job"), "stir": ("star", "sir"), "mix": ("makes", "mixed"),
    "pour": ("poor", "four"), "oil": ("all", "or"), "pound": ("pond", "found"), "hit": ("it", "heat"),
    "paint": ("pain", "pint"), "roll": ("role", "row"), "push": ("bush", "put"), "spin": ("been", "pin"),
    "wash": ("watch", "wish"), "rinse": ("prince", "rents"), "heat": ("eat", "he"), "toast": ("most", "taste"),
    "burn": ("born", "bird"), "coat": ("goat", "code"), "board": ("bored", "bird"), "pan": ("pen", "ban"),
    "the": ("a", "this"), "a": ("the", "of"), "and": ("in", "an"), "with": ("which", "and"), "to": ("two", "too"),
    "your": ("you", "or"), "here": ("hear", "her"), "now": ("no", "know"), "we": ("he", "they"),
    "then": ("than", "when"), "i": ("eye", "and"), "for": ("four", "or"), "so": ("to", "saw"),
    "next": ("text", "nice"), "you": ("to", "he"),
    "want": ("won", "went"), "use": ("you", "used"), "take": ("make", "tape"), "just": ("must", "does"),
}  # fmt: skip


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _noun(rng: np.random.Generator, name: str, others: tuple[str, ...], articles: tuple[str, ...]) -> str:
    word = name if rng.random() < USUAL_WORD else _pick(rng, others)
    return f"{_pick(rng, articles)} {word}"


def sentence(
    rng: np.random.Generator, *, object_: str | None, tool: str | None, action: str | None, place: str | None
) -> str:
    """Return a sentence about a step.

    Args:
        rng: Random generator.
        object_: Object. None is replaced by "it".
        tool: Tool, or None.
        action: Action. None is replaced by a vague verb.
        place: Place, or None.

    Returns:
        The sentence.
    """
    forms = ACTIONS[action] if action else (("work on", "working on"), ("deal with", "dealing with"))
    verb, verbing = forms[0] if rng.random() < USUAL_WORD else forms[int(rng.integers(1, len(forms)))]
    object_phrase = _noun(rng, object_, OBJECTS[object_], ("the", "this", "your")) if object_ else "it"
    tool_phrase = _noun(rng, tool, TOOLS[tool], ("the", "a", "my")) if tool else ""
    if tool_phrase.startswith("a ") and tool_phrase.endswith(("scissors", "shears")):
        tool_phrase = "some" + tool_phrase[1:]
    template = _pick(rng, _WITH_TOOL if tool else _WITHOUT_TOOL)
    text = template.format(verb=verb, verbing=verbing, object=object_phrase, tool=tool_phrase)
    return f"{text} {_pick(rng, PLACES[place])}" if place else text


def _words_of() -> dict[str, dict[str, str]]:
    """Return the value of each word by factor. Only the word of a phrase that no other value shares is listed."""
    nouns = (("object", OBJECTS), ("tool", TOOLS))
    table = {factor: {p.split()[-1]: v for v in names for p in (v, *names[v])} for factor, names in nouns}
    table["action"] = {form.split()[0]: name for name, pairs in ACTIONS.items() for pair in pairs for form in pair}
    table["place"] = {name: name for name in PLACES}
    table["order"] = {name: str(number) for number, name in enumerate(ORDINALS, 1)}
    return table


_VALUE_OF = _words_of()


def values_named_in(text: str) -> dict[str, str | None]:
    """Return the values that a sentence names.

    Misheard words count as they are written, so the result is the information of a reader who only sees the words.

    Args:
        text: Sentence.

    Returns:
        The first value of each factor (object, tool, action, place, order) in the sentence, or None. The order is a number in
        digits.

    Example:
        >>> from trichord.world.vocabulary import values_named_in
        >>> values_named_in("third step now slice the trout")
        {'object': 'fish', 'tool': None, 'action': 'cut', 'place': None, 'order': '3'}
    """
    words = text.split()
    return {factor: next((values[w] for w in words if w in values), None) for factor, values in _VALUE_OF.items()}


def chatter(rng: np.random.Generator) -> str:
    """Return a sentence that is unrelated to the step."""
    return _pick(rng, _CHATTER)


def title(rng: np.random.Generator, objects: list[str], action: str, place: str) -> str:
    """Return the title of a video, which names its first action, one or two of its objects, and its place.

    Args:
        rng: Random generator.
        objects: Objects of the video, in order.
        action: First action.
        place: Place.

    Returns:
        The title.
    """
    named = " and ".join(f"a {name}" if name not in ("bread", "cheese", "cloth") else name for name in objects[:2])
    opening = _pick(rng, ("how to", "easy way to", "learn to", "tips to"))
    return f"{opening} {ACTIONS[action][0][0]} {named} {PLACES[place][0]}"


def mishear(rng: np.random.Generator, text: str, *, word_error_rate: float, filler_rate: float) -> str:
    """Return the output of a simulated recognizer for a sentence.

    Each word is wrong with probability `word_error_rate`. Two thirds of the wrong words are replaced by a word that sounds
    similar, or dropped if no such word is known, and one third is dropped. A filler is inserted before each word with probability
    `filler_rate`. The result has at least one word.

    Args:
        rng: Random generator.
        text: Sentence.
        word_error_rate: Probability that a word is wrong.
        filler_rate: Probability of a filler before a word.

    Returns:
        The text that the recognizer writes.
    """
    words: list[str] = []
    for word in text.split():
        if rng.random() < filler_rate:
            words.append(_pick(rng, _FILLERS))
        if rng.random() >= word_error_rate:
            words.append(word)
        elif word in CONFUSIONS and rng.random() < 2 / 3:
            words.append(_pick(rng, CONFUSIONS[word]))
    return " ".join(words) if words else text.split()[0]
