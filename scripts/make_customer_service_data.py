"""Write the shipped customer-service scenarios: `python scripts/make_customer_service_data.py`.

Invariant: the output is a function of this file alone (`--check` says whether the files on disk are up to date), and
the train and the held-out file share no product, no fact value and no sentence of the user.

A scenario is a shop assistant's card of four or five short facts (`agent_context`, which the agent sees) and a
customer who asks for two or three of them, one in each turn. The facts not asked for are there to be left out.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent.parent / "data"
SEED = 20240115

FOLLOW_UPS = {
    "train": ("Okay. {q}", "Thanks. {q}", "Great, and {lower}", "Good to know. {q}", "And {lower}", "{q}"),
    "heldout": ("I see. {q}", "Perfect. {q}", "One more thing: {lower}", "Nice, but {lower}", "Right, so {lower}"),
}


@dataclass(frozen=True)
class Topic:
    """A kind of fact: its name, the values it takes in each file, and how customers ask for it."""

    name: str
    train: tuple[str, ...]
    heldout: tuple[str, ...]
    ask_train: tuple[str, ...]
    ask_heldout: tuple[str, ...]


TOPICS = {
    topic.name: topic
    for topic in (
        Topic(
            "price",
            ("$25", "$39", "$49", "$59", "$75", "$89", "$120", "$149", "$199", "$240"),
            ("$32", "$45", "$66", "$84", "$110", "$135", "$175", "$210"),
            ("How much does the {x} cost?", "What is the price of the {x}?", "How much is the {x}?"),
            ("What would I pay for the {x}?", "What does the {x} cost?", "Can you tell me the price of the {x}?"),
        ),
        Topic(
            "monthly price",
            ("$9 a month", "$12 a month", "$15 a month", "$19 a month", "$29 a month", "$35 a month"),
            ("$8 a month", "$14 a month", "$22 a month", "$27 a month", "$31 a month"),
            ("How much does the {x} cost?", "What is the monthly price of the {x}?"),
            ("What would I pay for the {x} each month?", "Can you tell me the monthly price of the {x}?"),
        ),
        Topic(
            "price per night",
            ("$70 a night", "$95 a night", "$105 a night", "$130 a night"),
            ("$64 a night", "$88 a night", "$115 a night", "$142 a night"),
            ("How much is a night at the {x}?", "What does one night at the {x} cost?"),
            ("What would I pay for a night at the {x}?", "Can you tell me the price per night at the {x}?"),
        ),
        Topic(
            "warranty",
            ("1 year", "2 years", "5 years", "18 months"),
            ("3 years", "4 years", "10 years", "30 months"),
            ("How long is the warranty?", "What warranty does it have?"),
            ("For how long is it under warranty?", "How many years of warranty do I get?"),
        ),
        Topic(
            "delivery",
            ("2 days", "3 days", "5 days", "7 days"),
            ("4 days", "8 days", "9 days", "12 days"),
            ("How long does delivery take?", "When would it be delivered?"),
            ("How many days until delivery?", "How fast is the delivery?"),
        ),
        Topic(
            "returns",
            ("14 days", "30 days", "60 days"),
            ("21 days", "45 days", "90 days"),
            ("How long do I have for returns?", "What is the return period?"),
            ("Until when are returns possible?", "How many days do I have to return it?"),
        ),
        Topic(
            "colour",
            ("green", "white", "dark blue", "silver", "red"),
            ("black", "yellow", "light grey", "orange"),
            ("What colour is it?", "Which colour does it come in?"),
            ("Can you tell me the colour?", "In what colour do you sell it?"),
        ),
        Topic(
            "weight",
            ("2 kg", "3 kg", "700 g", "950 g"),
            ("4 kg", "1.5 kg", "600 g", "850 g"),
            ("How much does it weigh?", "What is its weight?"),
            ("How heavy is it?", "Can you tell me the weight?"),
        ),
        Topic(
            "battery",
            ("8 hours", "12 hours", "20 hours"),
            ("9 hours", "16 hours", "36 hours"),
            ("How long does the battery last?", "What is the battery life?"),
            ("For how many hours does the battery run?", "How good is the battery?"),
        ),
        Topic(
            "free trial",
            ("15 days", "10 days", "20 days"),
            ("11 days", "25 days", "40 days"),
            ("How long is the free trial?", "Is there a free trial, and how long?"),
            ("For how many days can I try it for free?", "What about a free trial?"),
        ),
        Topic(
            "cancellation notice",
            ("1 month", "2 weeks", "6 weeks"),
            ("2 months", "3 weeks", "13 days"),
            ("What is the cancellation notice?", "How long is the notice for cancellation?"),
            ("How much notice do you need for cancellation?", "If I cancel, how long is the notice?"),
        ),
        Topic(
            "users",
            ("3 users", "5 users", "20 users"),
            ("4 users", "6 users", "50 users"),
            ("How many users are included?", "For how many users is it?"),
            ("How many users can share it?", "What is the limit on users?"),
        ),
        Topic(
            "storage",
            ("50 GB", "100 GB", "500 GB"),
            ("80 GB", "250 GB", "750 GB"),
            ("How much storage do I get?", "What storage is included?"),
            ("How big is the storage?", "Can you tell me the amount of storage?"),
        ),
        Topic(
            "speed",
            ("200 Mbps", "400 Mbps", "600 Mbps"),
            ("150 Mbps", "300 Mbps", "900 Mbps"),
            ("What speed does it have?", "How fast is it?"),
            ("Which speed can I expect?", "Can you tell me the speed?"),
        ),
        Topic(
            "length",
            ("4 weeks", "8 weeks", "10 weeks"),
            ("5 weeks", "7 weeks", "12 weeks"),
            ("How long is it?", "What is the length of the course?"),
            ("How many weeks does it last?", "For how long does it run?"),
        ),
        Topic(
            "start",
            ("March 3", "May 12", "June 20"),
            ("April 9", "August 17", "October 6"),
            ("When does it start?", "What is the start date?"),
            ("On which date does it begin?", "When is the first day?"),
        ),
        Topic(
            "teacher",
            ("Dr. Meyer", "Ms. Tanaka", "Mr. Silva"),
            ("Dr. Okafor", "Ms. Larsen", "Mr. Novak"),
            ("Who is the teacher?", "Who teaches it?"),
            ("Can you tell me who the teacher is?", "Which teacher will I have?"),
        ),
        Topic(
            "group size",
            ("8 people", "15 people", "24 people"),
            ("10 people", "18 people", "30 people"),
            ("How big is the group?", "What is the group size?"),
            ("How many people are in a group?", "Can you tell me the group size?"),
        ),
        Topic(
            "check-in",
            ("2 pm", "3 pm", "4 pm"),
            ("1 pm", "5 pm", "6 pm"),
            ("When is check-in?", "What time is check-in?"),
            ("From what time is check-in possible?", "At what hour can I check in?"),
        ),
        Topic(
            "breakfast",
            ("7 am", "8 am"),
            ("6 am", "9 am"),
            ("When does breakfast start?", "What time is breakfast?"),
            ("From what time do you serve breakfast?", "At what hour is breakfast?"),
        ),
        Topic(
            "parking",
            ("$6 a day", "$11 a day", "$18 a day"),
            ("$7 a day", "$13 a day", "$16 a day"),
            ("How much is parking?", "What does parking cost?"),
            ("What would I pay for parking?", "Do I have to pay for parking, and how much?"),
        ),
        Topic(
            "location",
            ("Park Street", "Market Square", "Station Road"),
            ("Garden Lane", "Harbour Street", "Mill Road"),
            ("Where is it?", "What is the location?"),
            ("In which street is it?", "Can you tell me the location?"),
        ),
    )
}


@dataclass(frozen=True)
class Kind:
    """A kind of product: the names that carry it, and the topics on its card (the first is asked first)."""

    category: str
    noun: str
    brands: tuple[str, ...]
    topics: tuple[str, ...]


GOODS = ("price", "warranty", "delivery", "returns", "colour", "weight")
POWERED = ("price", "warranty", "delivery", "battery", "colour", "weight")
PLAN = ("monthly price", "free trial", "cancellation notice", "users", "storage")
NETWORK = ("monthly price", "speed", "cancellation notice", "delivery")
COURSE = ("price", "length", "start", "teacher", "group size")
STAY = ("price per night", "check-in", "breakfast", "parking", "location")

TRAIN = (
    Kind("kitchen", "blender", ("Aero", "Mixo", "Swift", "Vita"), GOODS),
    Kind("kitchen", "kettle", ("Polar", "Brio", "Steam", "Cara"), GOODS),
    Kind("kitchen", "toaster", ("Crisp", "Duo", "Sunny", "Nova"), GOODS),
    Kind("audio", "headset", ("Echo", "Luma", "Tempo", "Bass"), POWERED),
    Kind("audio", "speaker", ("Boom", "Aria", "Pulse", "Solo"), POWERED),
    Kind("home", "vacuum cleaner", ("Dusty", "Turbo", "Clean", "Rapid"), POWERED),
    Kind("home", "desk lamp", ("Halo", "Bright", "Luna", "Spark"), GOODS),
    Kind("home", "office chair", ("Ergo", "Comfy", "Posture", "Lotus"), GOODS[:-1]),
    Kind("outdoor", "tent", ("Summit", "Forest", "River", "Canyon"), GOODS),
    Kind("outdoor", "backpack", ("Trail", "Ridge", "Scout", "Nomad"), GOODS[:-1]),
    Kind("subscription", "music plan", ("Family", "Chorus", "Melody", "Tune"), PLAN),
    Kind("subscription", "cloud plan", ("Cirrus", "Basic", "Plus", "Team"), PLAN),
    Kind("subscription", "photo plan", ("Album", "Lens", "Focus", "Pixel"), PLAN),
    Kind("internet", "router plan", ("Fiber", "Home", "Sprint", "Zoom"), NETWORK),
    Kind("internet", "cable plan", ("Metro", "Link", "Stream", "City"), NETWORK),
    Kind("course", "Spanish course", ("Sol", "Hola", "Amigo", "Viva"), COURSE),
    Kind("course", "cooking course", ("Basil", "Pepper", "Saffron", "Ginger"), COURSE),
    Kind("course", "painting course", ("Canvas", "Colora", "Palette", "Brush"), COURSE),
    Kind("hotel", "hotel", ("Seaview", "Central", "Royal", "Garden"), STAY),
    Kind("hotel", "hostel", ("Compass", "Traveller", "Sunrise", "Old Town"), STAY),
)

HELDOUT = (
    Kind("kitchen", "coffee machine", ("Mocha", "Roma", "Delta", "Prima"), GOODS),
    Kind("audio", "radio", ("Retro", "Wave", "Signal", "Vega"), POWERED),
    Kind("outdoor", "bicycle lock", ("Fort", "Titan", "Anchor", "Shield"), GOODS),
    Kind("home", "cordless drill", ("Onyx", "Force", "Rotor", "Mint"), POWERED),
    Kind("subscription", "video plan", ("Cinema", "Premiere", "Studio", "Reel"), PLAN),
    Kind("internet", "mobile plan", ("Orbit", "Nimbus", "Talk", "Roam"), NETWORK),
    Kind("course", "guitar class", ("Acorn", "Chord", "Rhythm", "String"), COURSE),
    Kind("hotel", "guest house", ("Willow", "Lakeside", "Alpine", "Maple"), STAY),
)


def scenario(kind: Kind, brand: str, split: str, rng: random.Random) -> dict[str, Any]:
    """One scenario: a card of four or five facts and a customer with two or three questions."""
    product = f"{brand} {kind.noun}"
    on_card = kind.topics[:1] + tuple(rng.sample(kind.topics[1:], min(len(kind.topics) - 1, rng.choice((3, 4)))))
    facts = choose_values(on_card, split, rng)
    asked = on_card[:1] + tuple(rng.sample(on_card[1:], rng.choice((1, 2))))
    user_responses = []
    for turn, name in enumerate(asked):
        ways = TOPICS[name].ask_train if split == "train" else TOPICS[name].ask_heldout
        question = rng.choice(ways).format(x=product)
        if turn:
            question = rng.choice(FOLLOW_UPS[split]).format(q=question, lower=question[0].lower() + question[1:])
        user_responses.append(question)
    card = list(facts.items())
    rng.shuffle(card)
    prefix = "" if split == "train" else "heldout-"
    return {
        "id": prefix + product.lower().replace(" ", "-"),
        "type": "product_question",
        "topic": product,
        "context": f"A customer asks about the {product}.",
        "agent_context": f"{product}\n" + "\n".join(f"{name}: {value}" for name, value in card),
        "metadata": {
            "difficulty": "easy" if len(asked) == 2 else "medium" if len(facts) == 4 else "hard",
            "category": kind.category,
            "expected_turns": len(asked),
        },
        "user_responses": user_responses,
        "facts": facts,
        "success_criteria": {"information_provided": list(asked)},
    }


def choose_values(names: tuple[str, ...], split: str, rng: random.Random) -> dict[str, str]:
    """A value for each topic."""
    return {name: rng.choice(TOPICS[name].train if split == "train" else TOPICS[name].heldout) for name in names}


def build(kinds: tuple[Kind, ...], split: str) -> dict[str, Any]:
    """All scenarios of one file. Kinds alternate, so that any prefix of the file is a fair sample of it."""
    rng = random.Random(f"{SEED}-{split}")
    count = len(kinds[0].brands)
    return {"scenarios": [scenario(kind, kind.brands[i], split, rng) for i in range(count) for kind in kinds]}


def files() -> dict[Path, str]:
    """Path and content of each file."""
    contents = {
        "customer_service_scenarios.json": build(TRAIN, "train"),
        "customer_service_heldout.json": build(HELDOUT, "heldout"),
    }
    return {DATA / name: json.dumps(data, indent=2, ensure_ascii=False) + "\n" for name, data in contents.items()}


def main() -> int:
    """Write the files, or with `--check` compare them; 0 when they are (or were) up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    check = parser.parse_args().check
    stale = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if not check:
            path.write_text(files()[path], encoding="utf-8")
        print(f"{'out of date' if check else 'written'}: {path.name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
