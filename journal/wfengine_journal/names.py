"""Made-up names for runs, which people can say and type: 'quiet-heron'. The id is what counts; a name is a convenience."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def _words(text: str) -> list[str]:
    return text.split()


_ADJECTIVES = _words(
    "able amber ample apt ardent avid azure blithe bold brave bright brisk calm candid clear clever coral cosmic "
    "crisp curious dapper daring deft eager early easy elder fair fast fine firm fleet fond fresh gentle gilded "
    "glad golden grand green hardy honest humble jolly keen kind lucid lucky merry mild mint modest neat nimble "
    "noble novel opal patient placid plucky polite prime proud pure quick quiet rapid ready regal robust rosy "
    "rustic sage serene sharp silent silver simple sleek smooth snug sober solar solid spry steady still stout "
    "sunny swift tidy tranquil true upbeat urbane vast vivid warm wise witty young zesty "
)
_NOUNS = _words(
    "adder albatross alpaca badger bat bear beaver bee bison bittern bobcat buzzard camel canary caribou carp "
    "cheetah cicada cobra condor coot coyote crab crane cricket crow curlew deer dingo dolphin dove dragonfly duck "
    "eagle eel egret elk falcon ferret finch firefly fox frog gannet gazelle gecko gibbon gnu goose grouse gull "
    "hare harrier hawk hedgehog heron hornet ibex ibis jackal jaguar jay kestrel kite kiwi koala lark lemur leopard "
    "linnet lion lizard llama lynx magpie marmot marten mink mole moose moth newt ocelot okapi orca osprey otter "
    "owl panda parrot pelican petrel pigeon pike plover puffin puma quail rabbit raven robin salmon seal shrew "
    "shrike skink snipe sparrow squid stoat stork swan swift tapir tern thrush tiger toad trout vole walrus weasel "
    "whale wolf wombat wren yak zebra "
)

#: Plain names tried before a number is added.
_TRIES = 8


def new_run_name(is_taken: Callable[[str], bool]) -> str:
    """Return a random name that is not taken."""
    for _ in range(_TRIES):
        name = f"{_any_of(_ADJECTIVES)}-{_any_of(_NOUNS)}"
        if not is_taken(name):
            return name
    while True:
        name = f"{_any_of(_ADJECTIVES)}-{_any_of(_NOUNS)}-{_any_of(range(10, 100_000))}"
        if not is_taken(name):
            return name


def _any_of(choices: Sequence[T]) -> T:
    # Not by `random`: that is slow to import, and a program that seeds it would give each of its runs the same name.
    return choices[int.from_bytes(os.urandom(4), "big") % len(choices)]
