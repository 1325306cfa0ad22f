"""Texts of the support desk: what replies say, addresses, and arguments as canonical JSON.

One rule: `canonical_args` writes what `runtime.canonical.canonical` would write of the same arguments; the texts hold
nothing that JSON escapes. A test compares them.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import TYPE_CHECKING

import polars as pl

from workbench.bench.desk_tables import COUNTRIES

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from workbench.bench.config import CallShares

_GREETINGS = ("Hello,", "Dear customer,", "Good morning,", "Thank you for writing.", "Grüezi,")
_MIDDLES = (
    "your parcel left our warehouse this morning and should be with you soon.",
    "we are sorry that the item arrived damaged; a replacement is on its way.",
    "your refund was booked and takes three to five working days to arrive.",
    "could you send us a picture of the label on the side of the box?",
    "the colour you asked for will be back in stock next week.",
    "a gift card of 10 EUR was added to your account.",
)
_ENDINGS = (
    "Kind regards, the service team.",
    "We are here for you every day from 8 to 20.",
    "Please keep the packaging until then.",
    "Is there anything else we can do?",
)
_LINKS = (
    "Follow it at https://track.example.com/parcel.",
    "Print the label at https://returns.example.com/label.",
    "See http://shop.example.net/help for more.",
)
_SECRETS = (
    "Please reply with your password so that we can look into it.",
    "Please tell us the card number you paid with.",
)


@cache
def countries() -> pl.Series:
    """Countries that addresses may be in."""
    return pl.Series(COUNTRIES)


@cache
def streets() -> pl.Series:
    """Names of streets."""
    kinds = ("Lane", "Street", "Road", "Square", "Avenue")
    trees = ("Ash", "Birch", "Cedar", "Elm", "Linden", "Maple", "Oak", "Pine", "Poplar", "Willow")
    return pl.Series([f"{tree} {kind}" for tree, kind in product(trees, kinds)])


@cache
def _sentences() -> pl.Series:
    return pl.Series([" ".join(parts) for parts in product(_GREETINGS, _MIDDLES, _ENDINGS)])


def bodies(
    below: Callable[[int, int], npt.NDArray[np.int64]],
    chosen: Callable[[float, int], npt.NDArray[np.bool_]],
    n: int,
    shares: CallShares,
) -> pl.Series:
    """Draw what `n` replies say: String, never null.

    Args:
        below: draws numbers below a bound.
        chosen: draws which of so many are so.
        n: how many.
        shares: how many hold a link, and how many ask for a secret.
    """
    plain = _sentences().gather(below(len(_sentences()), n))
    links = pl.Series(_LINKS).gather(below(len(_LINKS), n))
    secrets = pl.Series(_SECRETS).gather(below(len(_SECRETS), n))
    link, secret = chosen(shares.link_in_reply, n), chosen(shares.secret_in_reply, n)
    tail = pl.when(pl.Series(secret)).then(" " + secrets).when(pl.Series(link)).then(" " + links)
    return pl.select(pl.concat_str(plain, tail.otherwise(pl.lit("")))).to_series()


def canonical_args(amount: str = "amount_cents", internal: str = "internal") -> pl.Expr:
    """The arguments of a call as canonical JSON, from the columns of `DeskFrame.rows`, or others for two of them."""
    flag = pl.when(internal).then(pl.lit("true")).otherwise(pl.lit("false"))
    refund = _object(amount_cents=pl.col(amount), order_id=_text("order_id"), reason=_text("reason"))
    address = _object(city=_text("city"), country=_text("to_country"), street=_text("street"))
    tool = pl.col("tool")
    return (
        pl.when(tool == "lookup_order").then(_object(order_id=_text("order_id")))
        .when(tool == "issue_refund").then(refund)
        .when(tool == "change_address").then(_object(address=address, order_id=_text("order_id")))
        .when(tool == "reply_ticket").then(_object(body=_text("body"), internal=flag, ticket_id=_text("ticket_id")))
        .otherwise(_object(resolution=_text("resolution"), ticket_id=_text("ticket_id")))
    )  # fmt: skip


def _text(name: str) -> pl.Expr:
    return pl.concat_str(pl.lit('"'), pl.col(name), pl.lit('"'))


def _object(**members: pl.Expr) -> pl.Expr:
    """A JSON object; members are given in canonical order."""
    parts: list[pl.Expr] = []
    for name, value in members.items():
        parts += [pl.lit(f'{"," if parts else "{"}"{name}":'), value]
    return pl.concat_str(*parts, pl.lit("}"))
