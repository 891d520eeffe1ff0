"""What a run tells about its plan and its speed, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median

from .generate import Comparison, Engine

_ONE_STREAM = ("           (one stream was found fastest; --always uses more)",)


@dataclass(frozen=True)
class Report:
    """Figures of one run. Times are milliseconds, medians where they were measured repeatedly.

    The plan is that of the decoding graph at the end of the text. `serial_ms` and `concurrent_ms`
    are that graph's, computed by plain ggml in a process of its own and by the plan, in turns;
    `text_ms` is what a token took while the text was generated, the choice of it included.
    """

    model: str
    architecture: str
    prompt_tokens: int
    generated_tokens: int
    prompt_ms: float
    text_ms: float | None  # None when the text is one token long
    nodes: int
    units: int
    phases: int
    width: int
    streams: int
    threads: int
    waits: int
    hazards: dict[str, int]
    planning_ms: float
    serial_ms: float
    concurrent_ms: float
    runs: int  # turns of each of the two
    identical: bool  # the same bits from both
    bytes_per_token: int
    serial_gb_per_s: float
    concurrent_gb_per_s: float

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        by_number = sorted(self.hazards.items(), key=lambda item: -item[1])
        hazards = ", ".join(f"{count} {kind}" for kind, count in by_number)
        same = "the same bits" if self.identical else "DIFFERENT BITS"
        text = "" if self.text_ms is None else f", then {self.text_ms:.2f} ms per token"
        return "\n".join(
            [
                f"model      {self.model} ({self.architecture})",
                (
                    f"text       {self.prompt_tokens} prompt tokens in {self.prompt_ms:.1f} ms, "
                    f"{self.generated_tokens} generated{text}"
                ),
                (
                    f"graph      {self.nodes} nodes, {self.units} units, {self.phases} phases, "
                    f"at most {self.width} units in one"
                ),
                f"hazards    {hazards}",
                (
                    f"plan       made in {self.planning_ms:.2f} ms: {self.streams} streams, "
                    f"{self.waits} waits, {self.threads} threads"
                ),
                f"serial     {self.serial_ms:.2f} ms per token, {self.serial_gb_per_s:.1f} GB/s",
                (
                    f"concurrent {self.concurrent_ms:.2f} ms per token, "
                    f"{self.concurrent_gb_per_s:.1f} GB/s: "
                    f"{self.serial_ms / self.concurrent_ms:.2f}x, {same}"
                ),
                f"           (medians of {self.runs} turns each)",
                *_ONE_STREAM[self.streams != 1 :],
            ]
        )


def make_report(
    engine: Engine,
    comparison: Comparison,
    *,
    prompt_tokens: int,
    token_ms: list[float],
) -> Report:
    """The report of a finished text.

    token_ms: how long each generated token took, the first with the evaluation of the prompt.
    """
    plan = engine.decode_plan
    stats = plan.stats
    n_bytes = engine.model.nbytes_per_token(engine.decode_pass.n_kv)
    return Report(
        model=engine.path.name,
        architecture=engine.model.config.architecture,
        prompt_tokens=prompt_tokens,
        generated_tokens=len(token_ms),
        prompt_ms=token_ms[0],
        text_ms=median(token_ms[1:]) if len(token_ms) > 1 else None,
        nodes=len(engine.decode_pass.graph),
        units=stats.n_units,
        phases=stats.n_phases,
        width=stats.width,
        streams=stats.n_streams,
        threads=engine.threads,
        waits=stats.n_waits,
        hazards=dict(stats.hazards),
        planning_ms=(stats.adapter_seconds + stats.core_seconds) * 1e3,
        serial_ms=comparison.serial,
        concurrent_ms=comparison.concurrent,
        runs=len(comparison.serial_ms),
        identical=comparison.identical,
        bytes_per_token=n_bytes,
        serial_gb_per_s=n_bytes / comparison.serial / 1e6,
        concurrent_gb_per_s=n_bytes / comparison.concurrent / 1e6,
    )
