"""Sentences that the suites are made of, in two sets that share no form and no value: HELD_OUT and TUNING.

HELD_OUT is what is measured and reported. TUNING is for whoever chooses a setting of a memory, or trains one, by these
suites: `neuro eval ... --templates tuning`. No training text of a shipped model holds either, and a test holds the two
apart. (`benchmarks/facts.py` has twelve forms of its own; they were looked at while the shipped model was tuned, and none
of them is here.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuro.errors import UsageError, nearest


class Fact(NamedTuple):
    """One thing a user may say about themselves; every cue is continued by a space and the value."""

    said: str  # the user's statement up to the value: also the cue in the same words
    reworded: str  # a cue in other words
    told: str  # a cue in an assistant's mouth
    values: tuple[str, ...]


class Templates(NamedTuple):
    """A set of forms with the values that fill them."""

    facts: tuple[Fact, ...]
    wrongly: tuple[str, ...]  # before a statement that somebody else makes, and that is not so
    changed: tuple[str, ...]  # before a statement that replaces an earlier one
    chatter: tuple[str, ...]  # what is said in between, with {thing}, {place}, {when}
    replies: tuple[str, ...]
    things: tuple[str, ...]
    places: tuple[str, ...]
    times: tuple[str, ...]
    orders: tuple[str, ...]  # requests with {thing} and {place}, which a tool call answers
    tools: tuple[str, ...]  # names of tools, unlike any word of a request
    brackets: tuple[tuple[str, str], ...]  # what encloses a tool call
    joints: tuple[str, ...]  # what stands between its parts


_NAMES = ("Bruno", "Clara", "Dexter", "Fiona", "Gustav", "Iris", "Jasper", "Nora")

HELD_OUT = Templates(
    facts=(
        Fact("My dog is called", "The name that my dog answers to is", "Your dog is called", _NAMES),
        Fact(
            "I grew up in",
            "The town of my childhood was",
            "You grew up in",
            ("Leeds", "Dublin", "Vienna", "Lisbon", "Oslo", "Denver", "Perth", "Geneva"),
        ),
        Fact(
            "My favourite colour is",
            "Of all colours I like best",
            "Your favourite colour is",
            ("blue", "green", "red", "yellow", "white", "black", "orange", "brown"),
        ),
        Fact(
            "I earn my living as a",
            "My profession is that of a",
            "You earn your living as a",
            ("teacher", "lawyer", "farmer", "pilot", "nurse", "writer", "painter", "soldier"),
        ),
        Fact("My sister's name is", "My parents named their daughter", "Your sister's name is", _NAMES[::-1]),
        Fact(
            "In the school band I played the",
            "The instrument that I learned was the",
            "In the school band you played the",
            ("drums", "piano", "guitar", "violin", "flute", "trumpet", "organ", "horn"),
        ),
        Fact(
            "My birthday is in",
            "I was born in the month of",
            "Your birthday is in",
            ("January", "March", "April", "June", "July", "August", "October", "December"),
        ),
        Fact(
            "The car I drive is an old",
            "In my garage stands an old",
            "The car you drive is an old",
            ("Ford", "Volvo", "Honda", "Fiat", "Jaguar", "Porsche", "Toyota", "Opel"),
        ),
        Fact(
            "For breakfast I always have",
            "In the morning I eat nothing but",
            "For breakfast you always have",
            ("bread", "rice", "eggs", "fruit", "soup", "cheese", "meat", "cake"),
        ),
        Fact(
            "I get ill when I eat",
            "The doctor has forbidden me",
            "You get ill when you eat",
            ("nuts", "fish", "milk", "corn", "beans", "honey", "butter", "chicken"),
        ),
        Fact(
            "My boss at work is Mr.",
            "The man I report to is Mr.",
            "Your boss at work is Mr.",
            ("Baker", "Carter", "Dixon", "Hughes", "Murray", "Palmer", "Turner", "Webb"),
        ),
        Fact(
            "This year I am learning",
            "The language of my evening class is",
            "This year you are learning",
            ("French", "German", "Italian", "Spanish", "Russian", "Greek", "Arabic", "Chinese"),
        ),
        Fact(
            "My flat lies near the",
            "From my window I look down on the",
            "Your flat lies near the",
            ("bridge", "park", "river", "church", "station", "market", "hospital", "library"),
        ),
        Fact(
            "On Sundays I like to go",
            "My hobby is",
            "On Sundays you like to go",
            ("fishing", "swimming", "hunting", "sailing", "riding", "climbing", "dancing", "running"),
        ),
        Fact(
            "The number of my hotel room is",
            "The key they gave me opens room",
            "The number of your hotel room is",
            ("12", "27", "31", "48", "56", "63", "74", "95"),
        ),
        Fact(
            "I keep the spare key under the",
            "Whoever needs my spare key must look below the",
            "You keep the spare key under the",
            ("stone", "chair", "box", "carpet", "table", "bed", "stairs", "tree"),
        ),
        Fact(
            "The year of my wedding was",
            "My husband and I have been married since",
            "The year of your wedding was",
            ("1971", "1978", "1984", "1989", "1993", "1996", "2002", "2007"),
        ),
        Fact(
            "When I was a student I lived in",
            "My university was in",
            "When you were a student you lived in",
            ("Spain", "Canada", "Japan", "Brazil", "Sweden", "Egypt", "India", "Poland"),
        ),
        Fact(
            "As a child I was afraid of",
            "What frightened me most when I was small was",
            "As a child you were afraid of",
            ("fire", "water", "dogs", "horses", "birds", "thunder", "ghosts", "snow"),
        ),
        Fact(
            "My next meeting is on",
            "They expect me at the office on",
            "Your next meeting is on",
            ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
        ),
    ),
    wrongly=("A neighbour of mine, who is wrong, writes:", "In a letter of somebody else one reads:"),
    changed=("That is no longer so.", "Since yesterday this is different."),
    chatter=(
        "I saw a {thing} near the {place} {when}.",
        "Do you think that a {thing} would fit into the {place}?",
        "They have closed the {place}, because of the {thing}.",
        "Tell me something about the {thing} they found at the {place}.",
        "{when} we walked past the {place} and nobody spoke.",
        "How long does it take to carry a {thing} to the {place}?",
        "The {thing} was cheaper {when}.",
        "My uncle sold his {thing} and bought the {place}.",
        "It rained {when}, so the {place} was empty.",
        "Is there anything older than that {thing}?",
        "Nobody has cleaned the {place} since the {thing} fell down.",
        "I would rather talk about the {place}.",
    ),
    replies=(
        "I understand.",
        "That is good to know.",
        "Let me think about it.",
        "Thank you for telling me.",
        "Of course.",
    ),
    things=("ladder", "barrel", "carriage", "mirror", "candle", "wheel", "basket", "anchor"),
    places=("theatre", "harbour", "kitchen", "cellar", "garden", "museum", "palace", "factory"),
    times=("last night", "this morning", "two days ago", "in the winter", "before dinner", "after the war"),
    orders=(
        "Please bring the {thing} to the {place}.",
        "The {thing} has to be moved into the {place}.",
        "Somebody should put the {thing} in the {place}.",
        "I need the {thing} at the {place}.",
    ),
    tools=("falcon", "marble", "copper", "meadow", "silver", "thunder", "crystal", "shadow"),
    brackets=((" [", "]"), (" (", ")"), (' "', '"'), (" #", "#"), (" $", "$"), (" *", "*")),
    joints=(":", ";", "/", "+", "=", "&"),
)

TUNING = Templates(
    facts=(
        Fact(
            "The horse that I ride is named",
            "They call my horse",
            "The horse that you ride is named",
            ("Albert", "Bella", "Caesar", "Daisy"),
        ),
        Fact(
            "The wine I prefer comes from",
            "The best wine I know is made in",
            "The wine you prefer comes from",
            ("Italy", "Chile", "Hungary", "Portugal"),
        ),
        Fact("My lucky number is", "The number I always bet on is", "Your lucky number is", ("3", "8", "14", "22")),
        Fact(
            "At home we speak",
            "The language of my family is",
            "At home you speak",
            ("Welsh", "Dutch", "Turkish", "Hebrew"),
        ),
        Fact(
            "My garden is full of",
            "Behind my house grow",
            "Your garden is full of",
            ("roses", "weeds", "apples", "lilies"),
        ),
        Fact(
            "The ship I served on was the",
            "I was a sailor aboard the",
            "The ship you served on was the",
            ("Victory", "Endeavour", "Triumph", "Phoenix"),
        ),
        Fact(
            "My cat is known as",
            "I gave my cat the name",
            "Your cat is known as",
            ("Misty", "Tiger", "Smokey", "Felix", "Ginger", "Simba"),
        ),
        Fact(
            "The boat in my yard is a",
            "The vessel I have repaired is a",
            "The boat in your yard is a",
            ("ferry", "canoe", "yacht", "schooner", "barge", "raft"),
        ),
        Fact(
            "For dinner we usually cook",
            "What comes on our table at night is",
            "For dinner you usually cook",
            ("potatoes", "pasta", "beef", "lamb", "pork", "cabbage"),
        ),
        Fact(
            "The teacher I liked best was Miss",
            "The lady who taught me most was Miss",
            "The teacher you liked best was Miss",
            ("Fletcher", "Graham", "Harper", "Mason", "Norris", "Porter"),
        ),
        Fact(
            "The film I have seen most often is about",
            "My favourite picture tells a story of",
            "The film you have seen most often is about",
            ("pirates", "robots", "soldiers", "monks", "spies", "wolves"),
        ),
        Fact(
            "In my pocket I carry a",
            "You will find in my coat a",
            "In your pocket you carry a",
            ("knife", "coin", "ring", "pencil", "whistle", "compass"),
        ),
        Fact(
            "My grandmother came from",
            "The country my grandmother left was",
            "Your grandmother came from",
            ("Russia", "Greece", "Ireland", "Scotland", "Norway", "Turkey"),
        ),
        Fact(
            "My doctor is Dr.",
            "When I am ill I am treated by Dr.",
            "Your doctor is Dr.",
            ("Adams", "Bennett", "Clarke", "Foster", "Gordon", "Hayes"),
        ),
        Fact(
            "The team I support is the",
            "On match days I cheer for the",
            "The team you support is the",
            ("Tigers", "Eagles", "Rangers", "Giants", "Lions", "Bears"),
        ),
        Fact(
            "The ring on my finger is made of",
            "The jewel I never take off is of",
            "The ring on your finger is made of",
            ("gold", "iron", "brass", "bronze", "pearl", "ivory"),
        ),
        Fact(
            "The bus that takes me home is number",
            "I always wait for the bus with the number",
            "The bus that takes you home is number",
            ("5", "9", "11", "16", "40", "86"),
        ),
        Fact(
            "The winter coat I wear is made of",
            "In the cold I put on something of",
            "The winter coat you wear is made of",
            ("wool", "fur", "leather", "cotton", "silk", "velvet"),
        ),
        Fact(
            "The captain of our club is",
            "We have chosen to lead our club",
            "The captain of your club is",
            ("Arthur", "Bernard", "Cecil", "Donald", "Ernest", "Francis"),
        ),
        Fact(
            "The river near my farm is the",
            "My cattle drink from the",
            "The river near your farm is the",
            ("Thames", "Danube", "Rhine", "Nile", "Volga", "Hudson"),
        ),
    ),
    wrongly=("People who do not know me say:",),
    changed=("I have to correct myself.",),
    chatter=(
        "Have you ever been to a {place} with a {thing}?",
        "{when} the {thing} was stolen.",
        "There is a {thing} on the roof of the {place}.",
        "We could repair the {thing} {when}.",
    ),
    replies=("Indeed.", "I will remember that.", "As you wish."),
    things=("hammer", "curtain", "saddle", "violin"),
    places=("stable", "airport", "prison", "tavern"),
    times=("at noon", "last summer", "on Christmas Eve"),
    orders=("Take the {thing} over to the {place}.", "Fetch the {thing} from the {place}."),
    tools=("amber", "willow", "granite", "raven"),
    brackets=((" {", "}"), (" <", ">")),
    joints=("|", "~", "^"),
)

SETS = {"held-out": HELD_OUT, "tuning": TUNING}


def named(name: str) -> Templates:
    """A set by its name.

    Raises:
        UsageError: an unknown one.
    """
    if name not in SETS:
        raise UsageError(f"--templates: got '{name}'.", nearest(name, tuple(SETS)))
    return SETS[name]


def chatter(templates: Templates, random: np.random.Generator) -> str:
    """A sentence about nothing that is asked."""
    form = str(random.choice(templates.chatter))
    made = form.format(
        thing=random.choice(templates.things),
        place=random.choice(templates.places),
        when=random.choice(templates.times),
    )
    return made[0].upper() + made[1:]
