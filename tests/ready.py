"""The program as a process of its own that need not import torch: forked, for each command line, from one that has.

A start takes three seconds on a slow machine, nearly all of it for torch's modules. What only a true start can show,
such as streams that are closed and variables that libraries look at when they are loaded, is for tests that start one.
Shells and makefiles start a script in its place, which asks for such a process and ends as that ends.
"""

import atexit
import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

LONGEST = 2**17
"""Bytes of a request."""

STAND_IN = """#!{python} -ISs
import json, os, resource, signal, socket, sys

channel = socket.socket(fileno={channel})
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
kinds = resource.RLIMIT_CORE, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE
limits = [(kind, resource.getrlimit(kind)) for kind in kinds]
request = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ), "limits": limits}}
handed_on = signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM
signal.pthread_sigmask(signal.SIG_BLOCK, handed_on)  # until there is a program to hand them on to
socket.send_fds(channel, [json.dumps(request).encode()], [0, 1, 2, theirs.fileno()])
theirs.close()
program = os.pidfd_open(int(ours.recv(32)))
for number in handed_on:
    signal.signal(number, lambda number, _: signal.pidfd_send_signal(program, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, handed_on)
code = int(ours.recv(32))
signal.pthread_sigmask(signal.SIG_BLOCK, handed_on)
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class Running:
    """One command line on its way."""

    def __init__(self, reply: socket.socket) -> None:
        self._reply = reply
        self.pid = int(reply.recv(32))

    def send(self, number: int) -> None:
        """A signal, if it is still there: until it has been waited for, nobody else has its number."""
        if not self.has_ended():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """At once, if it is still there."""
        self.send(signal.SIGKILL)

    def has_ended(self) -> bool:
        """Whether `wait` would not wait."""
        self._reply.setblocking(False)
        try:
            return bool(self._reply.recv(32, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    def wait(self, seconds: float = 300) -> int:
        """The exit code, negative for a signal."""
        self._reply.settimeout(seconds)
        with self._reply:
            return int(self._reply.recv(32))


class Ready:
    """The process that waits, and what is asked of it."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._folder = tempfile.TemporaryDirectory()
        self._stand_in = self.stand_in(Path(self._folder.name) / "segcli")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip

    @property
    def channel(self) -> int:
        """The open file that stand-ins have to inherit (`pass_fds`)."""
        return self._channel.fileno()

    def stand_in(self, path: Path) -> Path:
        """A script for `path` that does what the program would."""
        path.write_text(STAND_IN.format(python=sys.executable, channel=self.channel))
        path.chmod(0o755)
        return path

    def popen(self, arguments: Sequence[object], folder: Path, **options: Any) -> "subprocess.Popen[Any]":
        """A stand-in with options of `Popen`. It hands on signals, also those that it was told to ignore, and has the
        program keep to its own limits of resources; killed, it takes the program with it."""
        command = [sys.executable, "-ISs", self._stand_in, *map(str, arguments)]
        return subprocess.Popen(command, cwd=folder, pass_fds=[self.channel], **options)

    def start(
        self, arguments: Sequence[object], folder: Path, out: int, err: int, more: Mapping[str, str] | None = None
    ) -> Running:
        """The program in `folder`, with this process's environment and some more; `out` and `err` are open files."""
        environment = {**os.environ, **(more or {})}
        request = {
            "arguments": list(map(str, arguments)), "folder": str(folder), "environment": environment, "limits": []
        }  # fmt: skip
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, Path(os.devnull).open() as nothing:
            files = [nothing.fileno(), out, err, theirs.fileno()]
            socket.send_fds(self._channel, [json.dumps(request).encode()], files)
        return Running(ours)

    def run(
        self, arguments: Sequence[object], folder: Path, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` has it, with all that was written."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = self.start(arguments, folder, out.fileno(), err.fileno(), more).wait()
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess(list(arguments), code, *texts)

    def close(self) -> None:
        self._channel.close()
        self._process.wait(60)
        self._folder.cleanup()


def serve(channel: socket.socket) -> None:
    """Fork for each request. It returns in the process that is to be the program; another one tells how that ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that tell
    while True:
        request, files, _, _ = socket.recv_fds(channel, LONGEST, 4)
        if not request:
            sys.exit()
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, reply = files
    if program := os.fork():
        with suppress(BrokenPipeError):  # nobody is there any more
            os.write(reply, str(program).encode())
        ended = select.poll()
        ended.register(os.pidfd_open(program), select.POLLIN)
        ended.register(reply, 0)  # it hangs up where a stand-in is killed
        if any(number == reply for number, _ in ended.poll()):
            os.kill(program, signal.SIGKILL)
        _, status = os.waitpid(program, 0)
        with suppress(BrokenPipeError):
            os.write(reply, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    for number, file in enumerate(streams):
        os.dup2(file, number)
    for file in (*files, channel.fileno()):
        os.close(file)
    # As Python opens them: what was open before could be sought in, which pipes cannot.
    sys.stdin, sys.stdout = (open(number, mode, closefd=False) for number, mode in enumerate("rw"))  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    become(**json.loads(request))


def become(
    arguments: Sequence[str], folder: str, environment: Mapping[str, str], limits: Sequence[tuple[int, tuple[int, int]]]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for which, bounds in limits:
        resource.setrlimit(which, tuple(bounds))
    sys.argv = ["segcli", *arguments]


def leave(code: object) -> None:
    """As Python ends, but for taking its modules apart, which copies all that this process shares with its parent."""
    assert isinstance(code, int)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    import torchvision  # noqa: F401  # what takes its time

    with suppress(ImportError):  # Typer looks at options with it, where it has it
        from pydantic import TypeAdapter  # noqa: F401

    import segcli.colorize
    import segcli.drawing.curves
    import segcli.evaluate
    import segcli.evaluation.page
    import segcli.predict
    import segcli.tile
    import segcli.train  # noqa: F401
    from segcli.cli import program

    gc.collect()
    gc.freeze()  # looking through what is there by now would copy all of it, in each fork
    serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        program()
    except SystemExit as ended:
        leave(ended.code)
