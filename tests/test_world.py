"""The small world against a reader of its English: what it answers, what it says, and that its splits never meet."""

import os
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from geminiq.data import microworld
from geminiq.data.microworld import (
    CONTAINERS,
    EVENTS,
    EVENTS_NOW,
    FURNITURE,
    MEN,
    NUMBERS,
    OPENERS,
    PEOPLE,
    PLACES,
    QUESTIONS,
    SPLITS,
    STUFF,
    THINGS,
    Message,
    Question,
    between,
    choose_some,
    conversation,
    draw_events,
    new_story,
    plural,
    split_of,
    village,
)
from machine import slowness

SMALL_TALK = ("talk", "sum", "no_story", "heard")


# A reader: it knows the forms of sentences, and nothing of how the world works

KINDS_OF_WORDS = {**dict.fromkeys([*PEOPLE, "she", "he", "She", "He"], "P"), **dict.fromkeys(("her", "him"), "M"),
                  **dict.fromkeys(PLACES, "L"), **dict.fromkeys([*CONTAINERS, *FURNITURE], "C"),
                  **dict.fromkeys([*STUFF, *map(plural, STUFF)], "S"), **dict.fromkeys(NUMBERS, "N"),
                  **{f"the {thing}": "T" for thing in THINGS}, **{f"The {thing}": "T" for thing in THINGS},
                  **dict.fromkeys(("it", "It"), "T")}
BLANKS = {"person": "P", "other": "P", "them": "M", "place": "L", "container": "C", "stuff": "S", "them_all": "S", "number": "N",
          "thing": "T"}
WORD = re.compile(rf"\b({'|'.join(sorted(KINDS_OF_WORDS, key=len, reverse=True))})\b")
BLANK = re.compile(r"(?:[Tt]he )?\{(thing)\}|\{(\w+)\}|\b([Ii]t)\b")


def outline(sentence: str) -> tuple[str, tuple[str, ...]]:
    "A sentence with its words blanked, and the words."
    words = WORD.findall(sentence)
    blanked = WORD.sub(lambda found: f"<{KINDS_OF_WORDS[found[0]]}>", sentence)
    return blanked[0].lower() + blanked[1:], tuple(word.removeprefix("the ").removeprefix("The ") for word in words)


def outlines(families: dict[str, list[str]]) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    "By the outline of a form, all families that have it, and what its blanks are for."
    found = defaultdict(list)
    for family, forms in families.items():
        for form in forms:
            blanks = tuple("it" if it else thing or other for thing, other, it in BLANK.findall(form))
            blanked = BLANK.sub(lambda match: "<T>" if match[3] else f"<{BLANKS[match[1] or match[2]]}>", form)
            found[blanked[0].lower() + blanked[1:]].append((family, blanks))
    return found


EVENT_OUTLINES = outlines({kind: EVENTS[kind] + EVENTS_NOW[kind] for kind in EVENTS})
QUESTION_OUTLINES = outlines({name: kind.forms for name, kind in QUESTIONS.items()})
FOLLOWING = re.compile(r"(?:And|And what about|What about|How about|Then what about|The same for|What of) "
                       r"(?:the )?(\w+?)(?: now)?\?")
ONE = {word: stuff for stuff in STUFF for word in (stuff, plural(stuff))}


@dataclass
class Told:
    "What one sentence tells; what it does not mention is empty."
    kind: str
    person: str = ""
    other: str = ""
    thing: str = ""
    place: str = ""
    container: str = ""
    stuff: str = ""
    number: int = 0
    mentioned: tuple[str, ...] = ()   # people and things, pronouns resolved


def meanings(text: str, known: dict) -> list[tuple[str, dict[str, str]]]:
    "All that a sentence may mean: the family, and what stands in its blanks."
    blanked, words = outline(text)
    found = []
    for family, blanks in known.get(blanked, []):
        given = dict(zip(blanks, words, strict=True))
        if given.pop("it", "it") in ("it", "It") and (family, given) not in found:
            found.append((family, given))
    return found


class Ambiguous(Exception):
    "A sentence of which one cannot tell what it says."


class Reader:
    "Remembers the sentences, and looks through all of them, from the last to the first, for each answer."

    def __init__(self) -> None:
        self.told: list[Told] = []

    # ---- reading
    def read(self, sentence: str) -> None:
        "Understand a sentence, with the one before it."
        text = sentence.removesuffix(".")
        opened = [text.removeprefix(f"{opener} ") for opener in OPENERS if text.startswith(f"{opener} ")]
        found = [meaning for candidate in {text, *opened} for meaning in meanings(candidate, EVENT_OUTLINES)]
        if len(found) != 1:
            raise Ambiguous(f"{sentence!r} means {found}")
        (kind, words), = found
        words = {blank: self._who(word) if blank in ("person", "other") else self._what(word) if blank == "thing" else word
                 for blank, word in words.items()}
        person = words.get("person", "")
        if words.pop("them", None) not in (None, "him" if person in MEN else "her"):
            raise Ambiguous(f"{sentence!r} speaks of {person} and of somebody else")
        stuff = ONE.get(words.get("stuff", words.get("them_all", "")), "")
        mentioned = tuple(words[blank] for blank in ("person", "other", "thing") if blank in words)
        self.told.append(Told(kind, person, words.get("other", ""), words.get("thing", ""), words.get("place", ""),
                              words.get("container", ""), stuff, NUMBERS.index(words.get("number", "no")), mentioned))
        self._check(self.told[-1], len(self.told) - 1)

    def _who(self, word: str) -> str:
        "Whom a name or a pronoun means: the only man, or the only woman, of the sentence before."
        if word in PEOPLE:
            return word
        wanted = {name for name in self.told[-1].mentioned if name in PEOPLE and (name in MEN) == (word.lower() == "he")} \
            if self.told else set()
        if len(wanted) != 1:
            raise Ambiguous(f"{word} may be {sorted(wanted)} after {self.told[-1:]}")
        return wanted.pop()

    def _what(self, word: str) -> str:
        "Which thing is meant: by name, or the only one of the sentence before."
        if word != "it":
            return word
        wanted = {name for name in self.told[-1].mentioned if name in THINGS} if self.told else set()
        if len(wanted) != 1:
            raise Ambiguous(f"it may be {sorted(wanted)} after {self.told[-1:]}")
        return wanted.pop()

    def _check(self, now: Told, i: int) -> None:
        "Refuse what cannot happen, by what was told before."
        before, here = self.until(i), None
        if now.kind in ("give", "drop", "put_in", "put_under"):
            assert before.holder(now.thing) == now.person, (now, self.told)
            here = before.place_of_person(now.person)
            assert here, (now, self.told)
        if now.kind == "give":
            assert before.place_of_person(now.other) == here, (now, self.told)
        if now.kind in ("put_in", "put_under"):
            assert before.place_of_container(now.container) in (None, here), (now, self.told)
        if now.kind == "drop":
            assert now.place in ("", here), (now, self.told)
        if now.kind in ("take", "take_out", "take_from_under"):
            where = before.where(now.thing)
            assert where is None or where[0] != "with", (now, self.told)
            how = {"take": "at", "take_out": "in", "take_from_under": "under"}[now.kind]
            assert where is None or where[0] == how, (now, self.told)
            assert where is None or before.place_of_thing(now.thing) == before.place_of_person(now.person), (now, self.told)
        if now.kind in ("lie", "notice", "have", "tell") and (where := before.where(now.thing)):
            assert now.kind == "tell" and where == ("at", now.place), (now, self.told)
        if now.kind in ("lose_some", "give_some"):
            assert (before.amount(now.person, now.stuff) or 0) >= now.number, (now, self.told)
        if now.kind == "have_some":
            assert before.amount(now.person, now.stuff) is None, (now, self.told)

    # ---- looking back
    def until(self, i: int) -> "Reader":
        "What was known before a sentence."
        earlier = Reader()
        earlier.told = self.told[:i]
        return earlier

    def visits(self, person: str) -> list[tuple[int, int, str]]:
        "Every coming of somebody: the sentence, the place in it, and where."
        return [(i, (told.person, told.other).index(person), told.place) for i, told in enumerate(self.told)
                if told.kind in ("be", "go", "go_together") and person in (told.person, told.other)]

    def place_of_person(self, person: str) -> str | None:
        visits = self.visits(person)
        return visits[-1][2] if visits else None

    def place_of_container(self, container: str) -> str | None:
        "Where it stands is told, or somebody put something into it where they were."
        for i, told in enumerate(self.told):
            if told.container == container and told.kind == "stand":
                return told.place
            if told.container == container and told.kind in ("put_in", "put_under"):
                return self.until(i).place_of_person(told.person)
        return None

    def moves(self, thing: str) -> list[tuple[int, str, str]]:
        "Everything that is told of where a thing is: the sentence, how, and with whom or what."
        found: list[tuple[int, str, str]] = []
        for i, told in enumerate(self.told):
            if told.thing != thing:
                continue
            if told.kind in ("have", "take", "take_out", "take_from_under"):
                found.append((i, "with", told.person))
            elif told.kind == "give":
                found.append((i, "with", told.other))
            elif told.kind in ("put_in", "put_under"):
                found.append((i, told.kind.removeprefix("put_"), told.container))
            elif told.kind == "drop":
                found.append((i, "at", self.until(i).place_of_person(told.person) or ""))
            else:
                found.append((i, "at", told.place))   # it lies there, or somebody says so
        return found

    def where(self, thing: str) -> tuple[str, str] | None:
        moves = self.moves(thing)
        return moves[-1][1:] if moves else None

    def holder(self, thing: str) -> str | None:
        where = self.where(thing)
        return where[1] if where and where[0] == "with" else None

    def place_of_thing(self, thing: str) -> str | None:
        if not (where := self.where(thing)):
            return None
        how, at = where
        return {"at": lambda at: at, "with": self.place_of_person}.get(how, self.place_of_container)(at)

    def amount(self, person: str, stuff: str) -> int | None:
        "What somebody has of it after all that came and went; nobody has any before some is told of."
        changes = [told.number if told.kind in ("have_some", "get_some") or told.other == person else -told.number
                   for told in self.told if told.stuff == stuff and told.kind != "count" and person in (told.person, told.other)]
        return sum(changes) if changes else None

    # ---- answers, by the name of the question; None: the story does not say
    def where_person(self, person: str) -> str | None:
        place = self.place_of_person(person)
        return place and f"{person} is in the {place}."

    def where_thing(self, thing: str) -> str | None:
        if not (where := self.where(thing)):
            return None
        how, at = where
        place = self.place_of_thing(thing)
        words = {"with": f" with {at}", "in": f" in the {at}", "under": f" under the {at}", "at": ""}[how]
        return f"The {thing} is{words}{f' in the {place}' if place else ''}."

    def before(self, person: str) -> str | None:
        visits = self.visits(person)
        return f"{person} was in the {visits[-2][2]}." if len(visits) > 1 else None

    def who_has(self, thing: str) -> str | None:
        return f"{self.holder(thing) or 'Nobody'} has the {thing}." if self.where(thing) else None

    def gave(self, thing: str, other: str) -> str | None:
        givers = [told.person for told in self.told if (told.kind, told.thing, told.other) == ("give", thing, other)]
        return f"{givers[-1]} gave the {thing} to {other}." if givers else None

    def who_in(self, place: str) -> str | None:
        came = {name: self.visits(name) for name in PEOPLE}
        there = sorted((visits[-1][:2], name) for name, visits in came.items() if visits and visits[-1][2] == place)
        if there:
            return f"{listed([name for _, name in there])} {'is' if len(there) == 1 else 'are'} in the {place}."
        return f"Nobody is in the {place}." if any(visit[2] == place for visits in came.values() for visit in visits) else None

    def first(self, place: str, person: str, other: str) -> str | None:
        came = {name: [visit[0] for visit in self.visits(name) if visit[2] == place] for name in (person, other)}
        if not any(came.values()):
            return None
        assert all(came.values()) and came[person][0] != came[other][0], f"nobody can tell whether {person} or {other} was first"
        return f"{min(came, key=lambda name: came[name][0])} was in the {place} first."

    def holds(self, person: str) -> str | None:
        all_moves = [self.moves(thing) for thing in THINGS]
        has = sorted((moves[-1][0], thing) for thing, moves in zip(THINGS, all_moves, strict=True)
                     if moves and moves[-1][1:] == ("with", person))
        if has:
            return f"{person} has {listed([f'the {thing}' for _, thing in has])}."
        return f"{person} has nothing." if any(("with", person) == move[1:] for moves in all_moves for move in moves) else None

    def inside(self, container: str) -> str | None:
        all_moves = [self.moves(thing) for thing in THINGS]
        has = sorted((moves[-1][0], thing) for thing, moves in zip(THINGS, all_moves, strict=True)
                     if moves and moves[-1][1:] == ("in", container))
        if has:
            names = listed([f"the {thing}" for _, thing in has])
            return f"T{names[1:]} {'is' if len(has) == 1 else 'are'} in the {container}."
        ever = any(("in", container) == move[1:] for moves in all_moves for move in moves)
        return f"Nothing is in the {container}." if ever else None

    def told_about(self, other: str, thing: str) -> str | None:
        found = [told for told in self.told if (told.kind, told.other, told.thing) == ("tell", other, thing)]
        return f"{found[-1].person} told {other} that the {thing} was in the {found[-1].place}." if found else None

    def how_many(self, person: str, stuff: str) -> str | None:
        n = self.amount(person, stuff)
        return None if n is None else f"{person} has {NUMBERS[n]} {plural(stuff, n)}."

    def counted(self, person: str, stuff: str) -> str | None:
        found = [told.number for told in self.told if (told.kind, told.person, told.stuff) == ("count", person, stuff)]
        return f"{person} counted {NUMBERS[found[-1]]} {plural(stuff, found[-1])}." if found else None

    def is_person_in(self, person: str, place: str) -> str | None:
        at = self.place_of_person(person)
        return at and f"{'Yes' if at == place else 'No'}, {person} is in the {at}."

    def is_thing_in(self, thing: str, place: str) -> str | None:
        at = self.place_of_thing(thing)
        return at and f"{'Yes' if at == place else 'No'}, the {thing} is in the {at}."

    def has_thing(self, thing: str, person: str) -> str | None:
        if not self.where(thing):
            return None
        holder = self.holder(thing)
        return f"{'Yes' if holder == person else 'No'}, {holder or 'nobody'} has the {thing}."


def listed(names: Sequence[str]) -> str:
    "One, two, or more names."
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


@dataclass
class Pupil:
    "Reads a conversation and answers its questions."
    reader: Reader = field(default_factory=Reader)
    last: tuple[str, dict[str, str]] | None = None   # the last question about the story

    def hear(self, message: Message, asked: Question | None) -> None:
        "Read the part of a message that tells a story."
        if message.role == "system" and not message.is_story:
            return
        text = re.sub(r"^Your name is \w+\. ?", "", message.content)
        if not message.is_story and asked:
            assert text.endswith(asked.text)
            text = text.removesuffix(asked.text)
        for sentence in re.findall(r"[^.]+\.", text):
            self.reader.read(sentence.strip())

    def answer(self, text: str) -> str:
        "What the story says to a question."
        if follows := FOLLOWING.fullmatch(text):
            assert self.last, text
            name, about = self.last
            about = {**about, next(iter(about)): follows[1]}
        else:
            found = meanings(text, QUESTION_OUTLINES)
            if len(found) != 1:
                raise Ambiguous(f"{text!r} means {found}")
            name, words = found[0]
            words = {blank: ONE.get(word, word) if blank == "stuff" else word for blank, word in words.items()}
            about = {blank: words[blank] for blank in QUESTIONS[name].about}
        self.last = name, about
        truth = getattr(self.reader, "told_about" if name == "told" else name)(**about)
        return truth or "The story does not say."


def examined(split: str, seed: int, n: int, make: Callable[[str, int, int], list[Message]] = conversation,
             ) -> Iterator[tuple[Question, str, Pupil]]:
    "Every question about a story in n conversations, and what the pupil says."
    for number in range(n):
        pupil, messages = Pupil(), make(split, seed, number)
        for i, message in enumerate(messages):
            if message.role != "assistant":
                pupil.hear(message, messages[i + 1].question if i + 1 < len(messages) else None)
            elif message.question and message.question.kind not in SMALL_TALK:
                yield message.question, pupil.answer(message.question.text), pupil


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_is_what_a_reader_of_the_sentences_finds(split: str):
    asked = Counter()
    for question, found, pupil in examined(split, seed=1, n=350):
        assert question.answer == found, (question, pupil.reader.told)
        assert question.answerable == (found != "The story does not say.")
        assert question.by <= frozenset(range(len(pupil.reader.told))) and bool(question.by) == question.answerable
        asked[question.kind] += 1
    assert asked.keys() == {kind.group for kind in QUESTIONS.values()} and asked.total() > 1500


@pytest.mark.parametrize("wrong", [
    "World._come: before is now", "World.happen: what is given stays", "World._change: what goes stays",
    "World.people_in: in the order of the alphabet", "Writer._is_clear: he may be anybody"])
def test_the_reader_notices_a_world_that_is_wrong(wrong: str, monkeypatch: pytest.MonkeyPatch):
    name, method = wrong.partition(":")[0].split(".")
    cls = getattr(microworld, name)
    right = getattr(cls, method)
    made_wrong = {
        "_come": lambda self, person, place, by: [right(self, person, place, by),
                                                  self.before.update({person: self.place[person]})],
        "happen": lambda self, event, by=frozenset(): None if event.kind == "give" else right(self, event, by),
        "people_in": lambda self, place: dict(sorted(right(self, place).items())),
        "_change": lambda self, person, stuff, number, by: right(self, person, stuff, number, by) if number > 0 else None,
        "_is_clear": lambda self, event: bool(event.person and self.support)}
    monkeypatch.setattr(cls, method, made_wrong[method])
    with pytest.raises((AssertionError, Ambiguous)):
        for question, found, _ in examined("train", seed=2, n=120):
            assert question.answer == found


def stories(split: str, seed: int) -> Iterator[str]:
    "The texts that tell and ask in conversations, without the answers."
    return (message.content for number in range(10**9) for message in conversation(split, seed, number)
            if message.role != "assistant")


def test_he_she_and_it_are_clear_in_every_sentence():
    pronouns = Counter()
    for number in range(600):
        pupil, messages = Pupil(), conversation("dev", 3, number)
        for i, message in enumerate(messages):
            if message.role != "assistant":
                pupil.hear(message, messages[i + 1].question if i + 1 < len(messages) else None)      # raises Ambiguous
                pronouns.update(re.findall(r"\b(?:[Hh]e|[Ss]he|it)\b", message.content))
    assert pronouns["he"] + pronouns["He"] > 50 < pronouns["she"] + pronouns["She"] and pronouns["it"] > 20


# How varied, how fast, how much the same everywhere

def test_every_family_has_many_forms_and_none_is_frequent():
    assert all(len(set(forms)) == len(forms) >= 30 for forms in EVENTS.values())
    groups = defaultdict(set)
    for kind in QUESTIONS.values():
        groups[kind.group].update(kind.forms)
    assert len(groups) >= 10 and all(len(forms) >= 8 for forms in groups.values())
    assert len(PEOPLE) >= 60 and len(PLACES) >= 40 and len(THINGS) >= 60
    letters, seen = 0, Counter()
    for text in stories("train", 5):
        seen.update(outline(sentence)[0] for sentence in re.split(r"(?<=[.?!])\s+", text))
        if (letters := letters + len(text)) > 10**6:
            break
    form, n = seen.most_common(1)[0]
    assert n < 0.02 * seen.total(), f"{form!r} is {n / seen.total():.1%} of {seen.total()} sentences"


def test_ten_megabytes_are_made_in_twenty_seconds():
    slow = slowness()
    begin, size, number = time.process_time(), 0, 0
    while size < 10**6:
        size += sum(len(message.content) for message in conversation("train", 4, number))
        number += 1
    seconds = 10 * (time.process_time() - begin)
    assert seconds < 20 * max(slow, slowness()), f"10 MB take {seconds:.0f} s, at {1 / slow:.1f} times the slow machine's speed"


def fingerprint() -> str:
    "A number that any other letter would change."
    letters = "".join(repr([tuple(message[:2]) for message in conversation(split, 7, number)])
                      for split in SPLITS for number in range(30))
    return blake2b(letters.encode()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_whatever_the_hashes():
    places = [str(Path(__file__).parent), *sys.path]
    program = f"import sys; sys.path[:0] = {places}; import test_world; print(test_world.fingerprint())"
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "4711" else "4711"
    other = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
                           capture_output=True, text=True)
    assert other.stdout.strip() == fingerprint()


# The splits

def facts(events: Sequence[microworld.Event]) -> frozenset:
    "What a story tells, in whatever order."
    return frozenset(events)


SMALLER = {"PEOPLE": 5, "PLACES": 5, "THINGS": 5, "CONTAINERS": 2, "FURNITURE": 1, "STUFF": 2}


@pytest.mark.parametrize("smaller", [False, True], ids=["the world", "so small a world that stories come again"])
def test_no_story_of_a_hundred_thousand_is_in_two_splits(smaller: bool, monkeypatch: pytest.MonkeyPatch):
    longest = 12
    if smaller:
        longest = 3
        for name, n in SMALLER.items():
            monkeypatch.setattr(microworld, name, getattr(microworld, name)[:n])
    told: dict[str, list[frozenset]] = {}
    for split, n in (("train", 45_000), ("dev", 2_500), ("test", 2_500)):
        rng = Random(SPLITS.index(split))
        told[split] = [facts(draw_events(rng, n_events := between(rng, 2, longest), split, n_events)) for _ in range(n)]
    train, dev, test = (set(found) for found in told.values())
    assert not train & dev and not train & test and not dev & test
    again = sum(map(len, told.values())) - len(train | dev | test)
    assert again > 5000 if smaller else again < 100, again


def test_order_and_repetition_do_not_move_a_story_to_another_split():
    rng = Random(0)
    for split in SPLITS:
        for _ in range(50):
            events = draw_events(rng, 6, split, 6)
            assert split_of(choose_some(rng, events, len(events))) == split_of([*events, *events[:2]]) == split


def test_a_conversation_tells_a_story_of_its_split(monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(microworld, "draw_events", lambda *how: drawn.append(draw_events(*how)) or drawn[-1])
    for split in SPLITS:
        drawn.clear()
        assert len(list(islice(microworld.conversations(split, 9), 60))) == len(drawn) == 60
        assert {split_of(events) for events in drawn} == {split}


def test_yes_is_no_better_guess_than_no():
    asked = [message.question for number in range(600) for message in microworld.conversation("train", 3, number)
             if message.question and message.question.kind == "yes_no" and message.question.answerable]
    yes = sum(question.answer.startswith("Yes") for question in asked)
    assert len(asked) > 300 and 0.42 < yes / len(asked) < 0.58, (yes, len(asked))


@pytest.mark.parametrize("split", SPLITS)
def test_the_village_is_small_and_as_true_as_the_world(split: str):
    kinds = Counter()
    for question, found, pupil in examined(split, 1, 350, village):
        assert question.answer == found, (question, pupil.reader.told)
        kinds[question.kind] += 1
        assert len(pupil.reader.told) <= 4
    assert kinds.keys() == {"where_person", "where_thing", "who_has", "holds"} and kinds.total() > 800
    stories = [message.content for number in range(350) for message in village(split, 1, number) if message.is_story]
    words = set(re.findall(r"[Tt]he (\w+)", " ".join([*stories, *(new_story(seed, "village") for seed in range(50))])))
    for names in (PLACES, THINGS):
        assert words & set(names) == set(names[:12])
