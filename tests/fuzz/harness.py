"""What the fuzzers share: a case runs in a process of its own, with limits of time and memory."""

import faulthandler
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import NamedTuple

from geminiq.utils.device import UserError


class Outcome(NamedTuple):
    "How a case ended."
    kind: str   # right, refused (one line for the user), or fault
    text: str   # the refusal, or what went wrong


def n_cases(default: int) -> int:   # of one test, in `make test`
    "How many cases to try; `make fuzz` asks for a multiple."
    return default * int(os.environ.get("GEMINIQ_FUZZ", 1))


def run_case(function: Callable[[], object],   # raises nothing if all is right, `UserError` if the user is to know
             seconds: float = 10,              # of its own processor time, and five times as long by the clock
             megabytes: int = 1000,            # more than this process has
             ) -> Outcome:
    "Run a function where it can do no harm."
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _run_here(function, seconds, megabytes, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        timed_out = _wait(process, 5 * seconds)
        answer = pipe.read().decode(errors="replace")
    _, status = os.waitpid(process, 0)
    if timed_out:
        return Outcome("fault", f"no answer in {5 * seconds} s")
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Outcome("fault", f"{seconds} s of processor time" if name == "SIGXCPU" else f"ended by {name}")
    kind, _, text = answer.partition(" ")
    if kind == "refused" and ("\n" in text or len(text) > 2000 or not text.isprintable()):
        return Outcome("fault", f"a refusal that is not one line: {text!r}")
    return Outcome(kind or "fault", text)


def run_cases(function: Callable[[int], object],   # takes the number of a case; otherwise as for `run_case`
              n: int,
              seconds: float = 10,                 # of processor time for each ten cases
              ) -> list[str]:
    "Run the cases 0 to n − 1, ten in a process of their own; returns their refusals, and fails if there is a fault."
    refusals = []
    for first in range(0, n, 10):
        outcome = run_case(lambda first=first: _several(function, range(first, min(first + 10, n))), seconds)
        assert outcome.kind == "refused" and outcome.text.startswith("in turn:"), f"cases from {first}: {outcome.text}"
        refusals += [text for text in outcome.text.split(" // ")[1:] if text]
    return refusals


def _several(function: Callable[[int], object], cases: Iterable[int]) -> None:
    "Run some cases, and report what was refused."
    report = "in turn:"
    for case in cases:
        try:
            function(case)
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 2000, f"case {case}: a refusal that is not one line: {error}"
            report += f" // {str(error)[:100]}"
        except BaseException as error:
            error.add_note(f"in case {case}")
            raise
    raise UserError(report)


def _run_here(function: Callable[[], object], seconds: float, megabytes: int, writing: int) -> None:
    "In the child: set the limits, run, report, end."
    answer = "fault ended without a word"
    faulthandler.disable()      # an abort is a result here
    try:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * 2**20,) * 2)
        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime + seconds + 1)
        resource.setrlimit(resource.RLIMIT_CPU, (most, most + 5))   # SIGXCPU says why; SIGKILL, later, would not
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.setrecursionlimit(3000)      # torch.compile raises it, too
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(silent, stream)
        function()
        answer = "right"
    except UserError as error:
        answer = f"refused {error}"
    except BaseException:
        answer = f"fault {traceback.format_exc()}"
    finally:
        os.write(writing, answer.encode(errors="replace")[:60_000])
        os._exit(0)


def _wait(process: int, seconds: float) -> bool:   # True: it had to be ended
    "Wait for a child, but not forever; its answer fits into the pipe."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    return True
