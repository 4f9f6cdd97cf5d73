"""Write the shipped web shop and its customers: `python scripts/make_order_data.py`.

Invariant: the output is a function of this file alone (`--check` says whether the files on disk are up to date), and
training, demonstrations and held-out tasks share no order, no thing that was ordered and no sentence of the customer.

A task is a customer with two wishes, each about an order: where it is, what it cost, what it was, or the money back.
What the agent has to do (`required_actions`) are calls of its tools with the right order, and what it has to say
(`facts`) stands in what the tools answer.
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
SEED = 20260917
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
Wish = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]
LIMIT = 30
"""Days after delivery in which money is given back."""


@dataclass(frozen=True)
class Words:
    """What one of the files is made of."""

    letters: str
    colours: tuple[str, ...]
    things: tuple[str, ...]
    prices: tuple[int, ...]
    ask: dict[str, tuple[str, ...]]
    then: tuple[str, ...]


TRAIN = Words(
    "ABCDEFGHJ",
    ("blue", "red", "green", "black"),
    ("lamp", "kettle", "bag", "chair", "clock", "mirror", "radio", "tent"),
    (12, 25, 30, 45, 59, 75, 80, 120),
    {
        "where": ("Where is my order {x}?", "When will order {x} arrive?", "I wait for order {x}. When does it come?"),
        "price": ("How much did I pay for order {x}?", "What was the price of order {x}?"),
        "thing": ("What did I buy with order {x}?", "What is in order {x}?"),
        "money": ("I want my money back for order {x}.", "Please refund order {x}.", "I want to return order {x}."),
        "it": ("I want my money back for it.", "Please refund it."),
    },
    ("Thanks. {q}", "Okay. {q}", "{q}"),
)
HELD_OUT = Words(
    "KLMNPRSTW",
    ("white", "yellow", "grey", "brown"),
    ("table", "pillow", "jacket", "camera", "bottle", "blanket", "guitar", "vase"),
    (18, 27, 34, 49, 66, 88, 95, 140),
    {
        "where": ("When do I get order {x}?", "Can you tell me where order {x} is?"),
        "price": ("What did order {x} cost me?", "Can you tell me the price of order {x}?"),
        "thing": ("Which thing did I order with {x}?", "Can you tell me what order {x} was?"),
        "money": ("Can I have my money back for order {x}?", "I would like a refund for order {x}."),
        "it": ("Can I have a refund for it?", "I would like my money back."),
    },
    ("I see. {q}", "Good. {q}", "Thank you. {q}"),
)


class Maker:
    """Orders and tasks of one file."""

    def __init__(self, words: Words, random_: random.Random, prefix: str) -> None:
        self.words, self.random, self.prefix = words, random_, prefix
        ids = [f"{letter}{number}" for letter in words.letters for number in range(10, 100)]
        self.free = self.random.sample(ids, len(ids))
        self.orders: list[dict[str, Any]] = []

    def order(self, state: str) -> dict[str, Any]:
        """A new order: shipped, delivered in time, or delivered too long ago. No price twice in a row."""
        pick = self.random.choice
        prices = [price for price in self.words.prices if not self.orders or price != self.orders[-1]["price"]]
        delivered = {"shipped": None, "recent": self.random.randint(2, 25), "late": self.random.randint(35, 80)}[state]
        order = {
            "id": self.free.pop(),
            "item": f"{pick(self.words.colours)} {pick(self.words.things)}",
            "price": pick(prices),
            "arrives": pick(DAYS) if delivered is None else None,
            "delivered_days_ago": delivered,
        }
        self.orders.append(order)
        return order

    def wish(self, kind: str, order: dict[str, Any] | None) -> Wish:
        """What the customer says, what has to be done, what has to be said, and the order."""
        same = order is not None
        if order is None:
            order = self.order("shipped" if kind == "where" else self.random.choice(("recent", "late", "recent")))
        x, in_time = order["id"], (order["delivered_days_ago"] or LIMIT + 1) <= LIMIT
        text = self.random.choice(self.words.ask["it" if same and kind == "money" else kind]).format(x=x)
        tool = "refund_order" if kind == "money" else "find_order"
        action = {"name": f"{tool} {x}", "tool": tool, "arguments": {"order": x}}
        fact = {
            "where": ("arrival", order["arrives"]),
            "price": ("price", f"${order['price']}"),
            "thing": ("item", order["item"]),
            "money": ("refund", _refund_wordings(order["price"])) if in_time else ("limit", f"{LIMIT} days"),
        }[kind]
        return text, action, {f"{fact[0]} of {x}": fact[1]}, order

    def task(self, number: int) -> dict[str, Any]:
        """Two wishes; who asks what was ordered wants the money back for it."""
        first = ("where", "price", "thing", "money")[number % 4]
        same = first == "thing"
        one = self.wish(first, None)
        others = [kind for kind in ("where", "price", "money") if kind != first]
        second = "money" if same else self.random.choice(others)
        two = self.wish(second, one[3] if same else None)
        return {
            "id": f"{self.prefix}-{number + 1:02}",
            "description": "Answer a customer of the web shop",
            "goal": f"{one[0]} {two[0]}",
            "required_actions": [one[1], two[1]],
            "facts": {**one[2], **two[2]},
            "success_criteria": {"information_provided": [*one[2], *two[2]]},
            "metadata": {"category": f"{first}, {second}", "expected_turns": 2},
            "user_responses": [one[0], self.random.choice(self.words.then).format(q=two[0])],
        }


def _refund_wordings(price: int) -> list[str]:
    return [f"${price} back", f"refunded ${price}", f"refunded you ${price}", f"refund of ${price}", f"${price} refund"]


def result_of(call: dict[str, Any], orders: dict[str, dict[str, Any]]) -> str:
    """What the shop's tools answer; `examples/shop.py` does the same with SQL."""
    order = orders[call["arguments"]["order"]]
    days = order["delivered_days_ago"]
    if call["tool"] == "find_order":
        when = f"shipped, arrives {order['arrives']}" if days is None else f"delivered {days} days ago"
        return f"{order['item']}, ${order['price']}, {when}"
    return f"refunded ${order['price']}" if days <= LIMIT else f"refused, the limit is {LIMIT} days"


def answer_to(kind: str, fact: Any, order: dict[str, Any]) -> str:
    """A good reply."""
    return {
        "arrival": f"Your {order['item']} arrives on {fact}.",
        "price": f"Your {order['item']} cost {fact}.",
        "item": f"You bought a {fact}.",
        "refund": f"You get {fact[0]}.",
        "limit": f"I am sorry, a refund is only possible for {fact}.",
    }[kind]


def demonstration(task: dict[str, Any], orders: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The conversation as it should go."""
    messages: list[dict[str, Any]] = []
    for said, action, (topic, fact) in zip(
        task["user_responses"], task["required_actions"], task["facts"].items(), strict=True
    ):
        call = {"name": action["tool"], "arguments": action["arguments"]}
        messages += [
            {"role": "user", "content": said},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": result_of(action, orders)},
            {"role": "assistant", "content": answer_to(topic.split()[0], fact, orders[action["arguments"]["order"]])},
        ]
    return {"messages": messages}


def made() -> dict[str, str]:
    """Name and text of each file."""
    train, held = Maker(TRAIN, random.Random(SEED), "order"), Maker(HELD_OUT, random.Random(SEED + 1), "heldout")
    tasks, held_out = [train.task(number) for number in range(36)], [held.task(number) for number in range(24)]
    shown = Maker(TRAIN, random.Random(SEED + 2), "shown")
    shown.free = train.free
    demonstrations = [shown.task(number) for number in range(24)]
    orders = sorted([*train.orders, *held.orders, *shown.orders], key=lambda order: order["id"])
    by_id = {order["id"]: order for order in orders}
    lines = [json.dumps(demonstration(task, by_id), ensure_ascii=False) for task in demonstrations]
    return {
        "order_tasks.json": json.dumps({"tasks": tasks}, indent=1, ensure_ascii=False) + "\n",
        "order_tasks_heldout.json": json.dumps({"tasks": held_out}, indent=1, ensure_ascii=False) + "\n",
        "order_demonstrations.jsonl": "\n".join(lines) + "\n",
        "shop.sql": _sql(orders),
    }


def _sql(orders: list[dict[str, Any]]) -> str:
    def written(value: Any) -> str:
        return "NULL" if value is None else f"'{value}'" if isinstance(value, str) else str(value)

    rows = ",\n".join(f"  ({', '.join(map(written, order.values()))}, 0)" for order in orders)
    return (
        "-- The orders of a small web shop. Written by scripts/make_order_data.py.\n"
        "CREATE TABLE orders (\n  id TEXT PRIMARY KEY,\n  item TEXT NOT NULL,\n  price INTEGER NOT NULL,\n"
        "  arrives TEXT,\n  delivered_days_ago INTEGER,\n  refunded INTEGER NOT NULL\n);\n"
        f"INSERT INTO orders VALUES\n{rows};\n"
    )


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not up to date")
    check = parser.parse_args().check
    stale = [name for name, text in made().items() if not check or (DATA / name).read_text(encoding="utf-8") != text]
    for name in stale:
        if check:
            print(f"data/{name} is not what scripts/make_order_data.py writes")
        else:
            (DATA / name).write_text(made()[name], encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
