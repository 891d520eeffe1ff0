"""One decoding step of a model, timed on demand in a process of its own.

OpenMP's run-time lets idle threads spin as long as there are no more of them than processors, and
puts them to sleep otherwise. Threads that one way of computing has made thus slow down another in
the same process, for good. What is compared is therefore timed in processes of its own, in turns.

Such a process greets with a line when it is ready; then it takes a line on standard input and
answers with one, until its input ends. A Stepper's line asks for a few steps, and the answer is the
milliseconds of one; bench/worker.py talks in JSON.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from .errors import Error

if TYPE_CHECKING:
    from typing_extensions import Self

#: Idle threads of the one who computed last stop spinning within this time.
SETTLE_SECONDS = 0.01


#: One that is asked to end does so within this time, or is killed.
_END_SECONDS = 5.0


class Conversation:
    """A conversation, line by line, with a process that times something; a context manager.

    Ctrl-C on a terminal does not reach the process, only the one who asks it.

    command: its arguments.
    environment: variables that it has besides those of this process.
    what: names it in messages.
    wait: whether to wait for its greeting here; else greet() has to be called.
    Raises Error when it ends before it is asked to.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str] | None = None,
        what: str = "the process that was to be timed",
        wait: bool = True,
    ) -> None:
        self.what = what
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self.greeting = ""
        if wait:
            self.greet()

    def greet(self) -> str:
        """Its greeting, once it is ready; an exception ends it."""
        try:
            self.greeting = self._answer()
        except BaseException:
            self.close(kill=True)
            raise
        return self.greeting

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def exchange(self, line: str) -> str:
        """The answer to a line, which is sent when other processes' threads have settled."""
        assert self._process.stdin is not None
        time.sleep(SETTLE_SECONDS)
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # there will be no answer, and that is what is reported
        return self._answer()

    def close(self, *, kill: bool = False) -> None:
        """End the process; in the middle of what it does if `kill`. May be called again."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if kill:
            self._process.kill()
        with contextlib.suppress(BrokenPipeError):  # something not yet sent that nobody will read
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            how = f"with exit code {code}" if code >= 0 else f"by signal {-code}"
            raise Error(f"{self.what} ended {how}")
        return line.strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(kill=kind is not None)


class Stepper(Conversation):
    """A process that computes one step of something a few times whenever it is asked to."""

    def step(self) -> float:
        """Milliseconds of one step."""
        return float(self.exchange(""))


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
        step.runner.settle()
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
