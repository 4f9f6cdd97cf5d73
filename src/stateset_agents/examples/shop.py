"""A small web shop in SQLite, and what an agent may do with it.

Invariant: a copy of a shop is a shop of its own, so that every conversation begins with the same orders and no refund
of one is seen by another. What the rules forbid is refused by the shop, whatever the agent says.
"""

from __future__ import annotations

import functools
import sqlite3
import threading
from contextlib import closing
from typing import Any, Self

from ..core.shipped import shipped
from ..core.tools import Tool

REFUND_DAYS = 30


class Shop:
    """Orders that can be looked up and refunded.

    Args:
        image: a serialised SQLite database with the table `orders`; None takes the shipped one.
    """

    def __init__(self, image: bytes | None = None) -> None:
        self._image = image if image is not None else _shipped_image()
        self._lock = threading.Lock()  # tools run in threads

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(self._image)

    def tools(self) -> list[Tool]:
        """What an agent may call."""
        refund = {"name": "refund_order", "function": self.refund_order, "sequential": True}
        return [Tool.of(self.find_order), Tool.of(refund)]

    def find_order(self, order: str) -> str:
        """Item, price and delivery of an order."""
        with closing(self._open()) as database:
            item, price, arrives, days, refunded = _row(database, order)
        when = f"shipped, arrives {arrives}" if days is None else f"delivered {days} days ago"
        return f"{item}, ${price}, {when}" + (", refunded" if refunded else "")

    def refund_order(self, order: str) -> str:
        """Give the money back."""
        with self._lock, closing(self._open()) as database:
            _, price, _, days, refunded = _row(database, order)
            if refunded:
                return "refused, it was refunded before"
            if days is None:
                return "refused, it is not delivered yet"
            if days > REFUND_DAYS:
                return f"refused, the limit is {REFUND_DAYS} days"
            database.execute("UPDATE orders SET refunded = 1 WHERE id = ?", (order,))
            database.commit()
            self._image = database.serialize()
        return f"refunded ${price}"

    def refunded(self) -> list[str]:
        """Orders whose money was given back."""
        with closing(self._open()) as database:
            return [row[0] for row in database.execute("SELECT id FROM orders WHERE refunded = 1 ORDER BY id")]

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(":memory:")
        database.deserialize(self._image)
        return database


_ORDER = "SELECT item, price, arrives, delivered_days_ago, refunded FROM orders WHERE id = ?"


def _row(database: sqlite3.Connection, order: str) -> tuple[Any, ...]:
    """The order.

    Raises:
        LookupError: there is none; the text is for the model.
    """
    found: tuple[Any, ...] | None = database.execute(_ORDER, (order,)).fetchone()
    if found is None:
        raise LookupError(f"there is no order {order}")
    return found


@functools.cache
def _shipped_image() -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(shipped("data/shop.sql").read_text(encoding="utf-8"))
        return database.serialize()
