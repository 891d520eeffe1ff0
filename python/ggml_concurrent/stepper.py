"""One decoding step of a model, timed on demand in a process of its own.

OpenMP's run-time lets idle threads spin as long as there are no more of them than processors, and
puts them to sleep otherwise. Threads that one way of computing has made thus slow down another in
the same process, for good. What is compared is therefore timed in processes of its own, in turns.

The process takes a line on standard input, computes the step a few times, and answers with a line
that holds the milliseconds of one. Its first line is "ready".
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from .errors import Error

#: Idle threads of the one who computed last stop spinning within this time.
SETTLE_SECONDS = 0.01


class Stepper:
    """A line-by-line conversation with a process that times something; a context manager.

    command: its arguments. Raises Error when it ends before it is asked to.
    """

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self.greeting = self._answer()
        except BaseException:
            self.close()
            raise

    def step(self) -> float:
        """Milliseconds of one step, which begins when other threads have settled."""
        assert self._process.stdin is not None
        time.sleep(SETTLE_SECONDS)
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # there will be no answer, and that is what is reported
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Error(f"the process that was to be timed ended: {self._process.args!r}")
        return line.strip()

    def __enter__(self) -> Stepper:  # noqa: PYI034  typing.Self needs Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def model_stepper(
    path: Path, *, streams: int, threads: int, position: int, always: bool = False
) -> Stepper:
    """A process that decodes a token at `position` of a model, whatever stands before it."""
    numbers = map(str, (streams, threads, position, int(always)))
    return Stepper([sys.executable, "-m", __name__, str(path), *numbers])


def steady_ms(call: Callable[[], object], times: int = 3) -> float:
    """Milliseconds that call() takes when it follows itself, as token follows token.

    The first call wakes the threads up and does not count; the mean of the others does.
    """
    call()
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) * 1e3 / times


def _main(path: str, *numbers: str) -> None:
    from .generate import Engine

    streams, threads, position, always = map(int, numbers)
    with Engine(Path(path), streams=streams, threads=threads, always=bool(always)) as engine:
        engine.load(position + 1)
        engine.position = position
        step = engine.decode_pass
        step.feed([engine.tokenizer.bos], position)
        step.runner.compute()
        _answer_with("ready")
        for _ in sys.stdin:
            _answer_with(steady_ms(step.runner.compute))


def _answer_with(value: object) -> None:
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)  # the one who asked is gone
    except (Error, OSError) as error:
        sys.exit(str(error))
