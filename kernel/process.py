# SPDX-License-Identifier: GPL-2.0-only
"""Run a program that talks a lot: its output goes to the log, and nothing of it outlives us."""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from kernel.errors import BuildError, SetupError


def clean_env(**extra: str) -> dict[str, str]:
    """An environment in which a build gives the same result for everybody: no `ARCH`, `CFLAGS`, `MAKEFLAGS`.

    PATH gets the administrator's directories, which an ordinary user's may lack.
    """
    env = {name: os.environ[name] for name in ("HOME", "TMPDIR", "http_proxy", "https_proxy") if name in os.environ}
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": f"{path}:/usr/local/sbin:/usr/sbin:/sbin", "LC_ALL": "C", **env, **extra}


def run_logged(
    argv: Sequence[str | Path],
    log: Path,
    what: str,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    keep_open: Sequence[int] = (),
    on_line: Callable[[str], object] | None = None,
    on_tick: Callable[[], object] | None = None,
) -> list[str]:
    """Run `argv` to its end, append its output to `log`, return the output's lines.

    `on_line` gets each line as it comes, `on_tick` is called some five times a second. The program has a
    process group of its own, which is killed when anything goes wrong here, Ctrl-C included. `keep_open` are file
    descriptors it inherits. Raises `BuildError` saying that `what` failed, with the first line of the output that
    looks like the cause.
    """
    lines: list[str] = []
    with log.open("ab") as file:
        file.write(f"\n$ {' '.join(map(str, argv))}\n".encode())
        with _started(argv, cwd, env, stdin, keep_open) as process:
            for line in _lines(process, on_tick):
                file.write(line)
                text = line.decode(errors="replace").rstrip("\n")
                lines.append(text)
                if on_line:
                    on_line(text)
        if process.returncode:
            file.write(f"exit status {process.returncode}\n".encode())
            raise BuildError(f"{what} failed: {_cause(lines, process.returncode)}", log)
    return lines


@contextlib.contextmanager
def _started(
    argv: Sequence[str | Path],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    stdin: IO[bytes] | None,
    keep_open: Sequence[int],
) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(
            [str(word) for word in argv],
            cwd=cwd,
            env=dict(env or clean_env()),
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(keep_open),
        )
    except OSError as error:
        raise SetupError(f"cannot run {argv[0]}: {error.strerror}") from error
    try:
        yield process
        process.wait()
    except BaseException:
        # Not reaped yet, so the group is certainly still ours.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        if process.stdout:
            process.stdout.close()


def _lines(process: subprocess.Popen[bytes], on_tick: Callable[[], object] | None) -> Iterator[bytes]:
    """Whole lines of output; the last one may lack its end."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    rest = b""
    ticked = 0.0
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            ready = selector.select(0.2 if on_tick else None)
            if on_tick and time.monotonic() - ticked > 0.2:
                on_tick()
                ticked = time.monotonic()
            if not ready:
                continue
            data = os.read(fd, 1 << 16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line + b"\n"
    if rest:
        yield rest


def _cause(lines: Sequence[str], status: int) -> str:
    """The line of the output that says why: the first error of a compiler, else the last line."""
    for sign in ("error:", "E: ", "No space left"):
        for line in lines:
            if sign in line:
                return line.strip()[:300]
    for before, line in itertools.pairwise(lines):
        if "*** [" in line:  # make only says that something failed; what failed said why before
            return (line if before.startswith(("  ", "make")) else before).strip()[:300]
    return lines[-1].strip()[:300] if lines else f"exit status {status}"
