"""A figure of the reliability benchmark: what was measured, and what it has to be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    part: str
    name: str
    measured: float
    unit: str = ""
    most: float | None = None
    """The largest value that is good enough; None where there is no bar."""

    @property
    def is_met(self) -> bool:
        """Whether the bar is met, or there is none."""
        return self.most is None or self.measured <= self.most

    def row(self) -> tuple[str, ...]:
        """Returns the cells of the table."""
        bar = "" if self.most is None else f"at most {self.most:.4g}{self._unit}"
        met = "" if self.most is None else "yes" if self.is_met else "**no**"
        measured = f"{self.measured:,.0f}" if self.measured >= 1000 else f"{self.measured:.4g}"
        return self.part, self.name, measured + self._unit, bar, met

    @property
    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""
