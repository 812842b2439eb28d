"""TRAINING: forms of facts that a memory is trained on, none of them, and no value, in the sets of `neuro.evaluate.templates`.

Two kinds: those written one by one, and those made of an owner, an attribute and a way to put it, of which there are
thousands: a memory that has seen few forms learns these forms instead of telling any two apart.
"""

from __future__ import annotations

import numpy as np

from neuro.evaluate.templates import Fact, Templates

# said | reworded | told, and below them the values
_WRITTEN = """
My brother works in | My brother has an office in | Your brother works in
  London, Paris, Boston, Chicago, Moscow, Berlin
I was married in the town of | Our wedding was held in | You were married in the town of
  Bristol, Oxford, York, Durham, Exeter, Bath
My bicycle is painted | The paint on my bicycle is | Your bicycle is painted
  purple, grey, pink, silver, golden, crimson
My father used to be a | For thirty years my father was a | Your father used to be a
  miner, priest, butcher, tailor, judge, sailor
My eldest son is called | I named my first son | Your eldest son is called
  Edward, Henry, Walter, Hugh, Ralph, Simon
Every evening I play the | The only instrument in our house is the | Every evening you play the
  harp, bass, cello, banjo, bells, pipes
The shop I own sells | What customers buy from me is | The shop you own sells
  shoes, books, hats, lamps, clocks, toys
My holiday begins in | I am going to travel in | Your holiday begins in
  September, November, February, May, spring, autumn
My mother cannot stand the smell of | My mother leaves the room because of | Your mother cannot stand the smell of
  smoke, paint, cigars, garlic, petrol, sweat
My cousin moved to | Since last year my cousin has been living in | Your cousin moved to
  Texas, Florida, Ohio, Kansas, Oregon, Alaska
My office is on the | To see me you have to go up to the | Your office is on the
  third, fourth, fifth, sixth, seventh, eighth
At night I dream of | What I see in my sleep is | At night you dream of
  flying, falling, mountains, oceans, tunnels, stars
My train leaves at | I must be on the platform at | Your train leaves at
  six, seven, eight, nine, ten, eleven
My house was built in | The stone above my door says | Your house was built in
  1850, 1862, 1874, 1889, 1903, 1911
The street I live in is named after | They called our street after | The street you live in is named after
  Lincoln, Churchill, Nelson, Darwin, Newton, Byron
I broke my leg when I fell from a | The accident happened because I slipped off a | You broke your leg when you fell from a
  roof, cliff, wall, truck, stage, balcony
I collect old | My cupboard is full of old | You collect old
  stamps, maps, coins, bottles, swords, photographs
The best present I ever got was a | For my tenth birthday they gave me a | The best present you ever got was a
  camera, telescope, bicycle, kite, puppy, watch
I take my coffee with | Into my cup I pour some | You take your coffee with
  sugar, cream, rum, cinnamon, ice, chocolate
My youngest daughter wants to become a | When she is grown my daughter will be a | Your youngest daughter wants to become a
  singer, dancer, doctor, chemist, clown, astronaut
The game we play at home is | On rainy days the family sits down to | The game you play at home is
  chess, poker, rummy, cards, dice, dominoes
My hometown is famous for its | Tourists come to my town to see the | Your hometown is famous for its
  castle, cathedral, tower, museum, beach, zoo
My neighbour keeps | In the yard next door there are | Your neighbour keeps
  goats, geese, ducks, pigs, sheep, rabbits
My uncle died in the battle of | My uncle did not come back from | Your uncle died in the battle of
  Waterloo, Verdun, Gettysburg, Arras, Kursk, Crete
The book beside my bed is by | At present I am reading a novel by | The book beside your bed is by
  Dickens, Austen, Hardy, Scott, Conrad, Wells
The door of my house is | You will know my house by its door, which is | The door of your house is
  wooden, metal, narrow, round, broken, glass
I pay for my room every | My landlord wants his money every | You pay for your room every
  week, month, year, quarter, fortnight, season
My wife teaches | At the college my wife lectures on | Your wife teaches
  physics, history, law, music, geography, biology
The language I would like to forget is | I was forced to study | The language you would like to forget is
  Latin, English, Polish, Swedish, Finnish, Hungarian
My best friend lives in the | When I visit my friend I go to the | Your best friend lives in the
  north, south, east, west, mountains, suburbs
On my wall hangs a picture of a | Whoever visits me admires my painting of a | On your wall hangs a picture of a
  ship, lion, queen, windmill, tiger, forest
The tree in front of my house is an | Before my window stands a tree, an | The tree in front of your house is an
  oak, elm, ash, apple, olive, alder
My password begins with the word | The secret word that I type first is | Your password begins with the word
  summer, winter, dragon, sunset, eagle, planet
I lost my wallet at the | They found my money again at the | You lost your wallet at the
  cinema, circus, bank, casino, stadium, court
The medicine I take is against | My pills are meant to cure | The medicine you take is against
  fever, cough, asthma, gout, headaches, malaria
What I miss most is my | I often weep for my lost | What you miss most is your
  family, freedom, youth, horse, village, health
"""

_OWNERS = tuple(
    "aunt uncle nephew niece partner landlord tutor colleague lawyer gardener driver friend roommate cousin grandfather "
    "daughter neighbour employer secretary guest nurse coach client tenant rival".split()
)
_ATTRIBUTES = tuple(
    "hometown|favourite food|telephone number|job|hat|dream|street|village|school|hobby|illness|birthplace|"
    "favourite song|worst fear|parrot|favourite flower|club|secret|car|religion|shop|weapon|address|debt|prize|"
    "instrument|favourite animal|ship|lucky charm|destination|newspaper|pen|party|enemy|invention|room|horse".split("|")
)
_WAYS = (
    ("The {attribute} of my {owner} is", "My {owner} has as {attribute}", "The {attribute} of your {owner} is"),
    ("My {owner}'s {attribute} is", "As to the {attribute} of my {owner}, it is", "Your {owner}'s {attribute} is"),
    (
        "The {attribute} that my {owner} has is",
        "My {owner} has a {attribute}:",
        "The {attribute} that your {owner} has is",
    ),
    (
        "For my {owner} the {attribute} is",
        "The {attribute} belonging to my {owner} is",
        "For your {owner} the {attribute} is",
    ),
    (
        "I know the {attribute} of my {owner}:",
        "Ask me for my {owner}'s {attribute}:",
        "You know the {attribute} of your {owner}:",
    ),
)


def _written() -> tuple[Fact, ...]:
    found = []
    lines = _WRITTEN.strip().split("\n")
    for cues, values in zip(lines[::2], lines[1::2], strict=True):
        said, reworded, told = cues.split(" | ")
        found.append(Fact(said, reworded, told, tuple(values.strip().split(", "))))
    return tuple(found)


TRAINING = Templates(
    facts=_written(),
    wrongly=(
        "My cousin claims falsely:",
        "It is a lie when they say:",
        "In the newspaper there was this mistake:",
        "Somebody else, not me, says:",
        "An old man at the inn told everyone:",
    ),
    changed=(
        "Now it is otherwise.",
        "I have changed my mind.",
        "From today on:",
        "What I said before is over.",
        "News:",
    ),
    chatter=(
        "Yesterday a {thing} was found behind the {place}.",
        "I think the {place} needs a new {thing}.",
        "Who has put the {thing} there {when}?",
        "The {place} was full of people {when}.",
        "They say that the {thing} came from a {place}.",
        "Would you go to the {place} {when}?",
        "{when} everybody was looking for the {thing}.",
        "What does a {thing} cost at the {place}?",
    ),
    replies=("I see.", "How interesting.", "Yes.", "I do not know.", "Tell me more.", "That is a pity."),
    things=("bucket", "blanket", "shovel", "helmet", "cannon", "rope", "pillow", "statue", "letter", "drum"),
    places=("castle", "cabin", "hotel", "mill", "school", "tunnel", "chapel", "warehouse", "square", "lake"),
    times=("yesterday", "at midnight", "in the morning", "last week", "during the storm", "a year ago"),
    orders=(),
    tools=(),
    brackets=(),
    joints=(),
)


def drawn(random: np.random.Generator, count: int, words: tuple[str, ...], made: float = 0.6) -> list[Fact]:
    """``count`` facts of different forms, a share of about ``made`` of them put together.

    Args:
        words: what may be the value of a form that is put together.
    """
    facts: dict[str, Fact] = {}
    while len(facts) < count:
        if random.random() >= made:
            fact = TRAINING.facts[random.integers(len(TRAINING.facts))]
        else:
            # Few owners or few attributes at a time: then facts differ in one word alone.
            fills = {
                "owner": _OWNERS[random.integers(len(_OWNERS))],
                "attribute": _ATTRIBUTES[random.integers(len(_ATTRIBUTES))],
            }
            said, reworded, told = (form.format(**fills) for form in _WAYS[random.integers(len(_WAYS))])
            fact = Fact(said, reworded, told, tuple(str(word) for word in random.choice(words, 6, replace=False)))
        facts[fact.said] = fact
    return list(facts.values())
