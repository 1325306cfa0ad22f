"""What all nights say of a candidate, in the form in which a run carries an outcome."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from workbench.faces import Page, Table
from workbench.regressing.result import EXIT
from workbench.texts import count

if TYPE_CHECKING:
    from runtime.canonical import Json
    from workbench.regressing.result import GateLook, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What all nights say of a candidate, as a run carries it."""

    verdict: Verdict
    gates: tuple[GateLook, ...]
    night: int

    def as_dict(self) -> dict[str, Json]:
        """Return it as JSON."""
        gates: list[Json] = [asdict(gate) for gate in self.gates]
        return {"verdict": self.verdict, "exit_code": EXIT[self.verdict], "night": self.night, "gates": gates}

    def page(self) -> Page:
        """Say it."""
        states = [gate.state for gate in self.gates]
        told = ", ".join(f"{states.count(state)} {state}" for state in ("met", "failed", "open"))
        heads = ("gate", "is", "on this log", "from", "to", "sessions", "why")
        rows = [
            (gate.text, gate.state, _between(gate), gate.lower, gate.upper, gate.sessions, gate.why)
            for gate in self.gates
        ]
        note = "All nights together; from, to: sure at the gate's level at every look, estimates for future traffic."
        table = Table(title="Gates over all nights", note=note, heads=heads, rows=rows, code=frozenset({0}))
        return Page(
            kind="gates", title=self.verdict.capitalize(),
            lines=(f"Night {self.night}; {count(len(states), 'gate')}: {told}.",), parts=(table,),
        )  # fmt: skip


def _between(gate: GateLook) -> str:
    if gate.low is None or gate.high is None:
        return ""
    return f"{gate.low:.6g}" if gate.low == gate.high else f"{gate.low:.6g} to {gate.high:.6g}"
