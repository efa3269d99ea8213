"""Names for runs that people can say and type: 'quiet-heron'. The id is what counts; a name is a convenience."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from wfengine_journal.errors import UsageError
from wfengine_journal.transitions import utf8_text


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


def typed(run_id: int, name: str) -> str:
    """Return what a person types to mean this run: its name, or its id where a shell would stumble over the name."""
    plain = name.replace("-", "").replace("_", "").replace(".", "").isalnum() and not name.startswith("-")
    return name if plain else str(run_id)


def new_run_name(is_taken: Callable[[str], bool]) -> str:
    """Return a random name that is not taken."""
    for _ in range(_TRIES):
        name = f"{random.choice(_ADJECTIVES)}-{random.choice(_NOUNS)}"
        if not is_taken(name):
            return name
    while True:
        name = f"{random.choice(_ADJECTIVES)}-{random.choice(_NOUNS)}-{random.randrange(10, 100000)}"
        if not is_taken(name):
            return name


def render_name(name: str | Callable[..., str], arguments: Mapping[str, object], owner: str) -> str:
    """Return the run name that a template or function gives for these arguments."""
    try:
        if callable(name):
            return utf8_text(name(**arguments) if _takes_arguments(name) else name())
        return utf8_text(name.format(**arguments))
    except (KeyError, IndexError, AttributeError) as error:
        raise UsageError(
            f"The run name of {owner} does not fit its arguments ({type(error).__name__}: {error}). "
            f"It may use: {', '.join(arguments) or 'none'}."
        ) from error


def _takes_arguments(fn: Callable[..., str]) -> bool:
    return bool(fn.__code__.co_argcount or fn.__code__.co_kwonlyargcount) if hasattr(fn, "__code__") else False
