"""What can happen in the world, and the words for it: factors, sentences, and how a recogniser mishears them.

All words are ordinary English in lower case without apostrophes, so that a table of word vectors knows them.
"""

from __future__ import annotations

import numpy as np

# Each name is followed by less usual words for the same thing.
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
# (plain form, form in -ing); the first pair is the usual one.
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
# One stroke of the action takes this long, in the picture and in the sound.
PERIOD_S = {"cut": 0.5, "stir": 1.2, "pour": 2.0, "pound": 0.8, "paint": 1.0, "roll": 2.4, "wash": 0.3, "heat": 3.0}
USUAL_WORD = 0.75  # how often the usual word is said instead of a less usual one

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

# What the recogniser writes instead. A word that is not here is dropped instead.
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
    """A true sentence about a step. What is None is not said: the object becomes "it", the action a vague verb."""
    known = ACTIONS[action] if action else (("work on", "working on"), ("deal with", "dealing with"))
    verb, verbing = known[0] if rng.random() < USUAL_WORD else known[int(rng.integers(1, len(known)))]
    object_phrase = _noun(rng, object_, OBJECTS[object_], ("the", "this", "your")) if object_ else "it"
    tool_phrase = _noun(rng, tool, TOOLS[tool], ("the", "a", "my")) if tool else ""
    if tool_phrase.startswith("a ") and tool_phrase.endswith(("scissors", "shears")):
        tool_phrase = "some" + tool_phrase[1:]
    template = _pick(rng, _WITH_TOOL if tool else _WITHOUT_TOOL)
    text = template.format(verb=verb, verbing=verbing, object=object_phrase, tool=tool_phrase)
    return f"{text} {_pick(rng, PLACES[place])}" if place else text


def _words_of() -> dict[str, dict[str, str]]:
    """For each factor: word -> value. Of a phrase only the word counts that no other value shares."""
    nouns = (("object", OBJECTS), ("tool", TOOLS))
    table = {factor: {p.split()[-1]: v for v in names for p in (v, *names[v])} for factor, names in nouns}
    table["action"] = {form.split()[0]: name for name, pairs in ACTIONS.items() for pair in pairs for form in pair}
    table["place"] = {name: name for name in PLACES}
    table["order"] = {name: str(number) for number, name in enumerate(ORDINALS, 1)}
    return table


_VALUE_OF = _words_of()


def told_in(text: str) -> dict[str, str | None]:
    """What a sentence names: for each factor (object, tool, action, place, order) the first value, or None.

    The order comes as a number in digits. Misheard words count as what they say, so this is what a reader knows who
    sees the words alone.
    """
    words = text.split()
    return {factor: next((values[w] for w in words if w in values), None) for factor, values in _VALUE_OF.items()}


def chatter(rng: np.random.Generator) -> str:
    """A sentence that has nothing to do with the step."""
    return _pick(rng, _CHATTER)


def title(rng: np.random.Generator, objects: list[str], action: str, place: str) -> str:
    """The video's title: its first action, one or two of its objects, its place."""
    named = " and ".join(f"a {name}" if name not in ("bread", "cheese", "cloth") else name for name in objects[:2])
    opening = _pick(rng, ("how to", "easy way to", "learn to", "tips to"))
    return f"{opening} {ACTIONS[action][0][0]} {named} {PLACES[place][0]}"


def mishear(rng: np.random.Generator, text: str, *, word_error_rate: float, filler_rate: float) -> str:
    """What a recogniser writes for `text`.

    Each word is wrong with probability `word_error_rate`: two in three are replaced by a word that sounds like it (or
    dropped when none is known), the third is dropped. Before each word a filler stands with probability
    `filler_rate`. At least one word stays.
    """
    heard: list[str] = []
    for word in text.split():
        if rng.random() < filler_rate:
            heard.append(_pick(rng, _FILLERS))
        if rng.random() >= word_error_rate:
            heard.append(word)
        elif word in CONFUSIONS and rng.random() < 2 / 3:
            heard.append(_pick(rng, CONFUSIONS[word]))
    return " ".join(heard) if heard else text.split()[0]
