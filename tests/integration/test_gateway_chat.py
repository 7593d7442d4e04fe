"""`python -m hermes chat` in a real terminal, against the real model."""

import os
import pty
import re
import select
import subprocess
import sys
import termios

from hermes.devserver.server import PROJECT
from tests.support.asking import until

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


class Terminal:
    """The command in a pseudo-terminal."""

    def __init__(self, home, *arguments):
        self.control, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hermes", "chat", *arguments],
            cwd=PROJECT,
            env={**os.environ, "HOME": str(home), "TERM": "xterm", "COLUMNS": "80"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lambda: os.login_tty(theirs),  # so that Ctrl-C there is a signal
        )
        os.close(theirs)
        self.shown = ""

    def read(self):
        """What is shown now, without colours and movements."""
        while select.select([self.control], [], [], 0)[0]:
            try:
                data = os.read(self.control, 65536)
            except OSError:
                break
            if b"\x1b[6n" in data:
                os.write(self.control, b"\x1b[1;1R")  # a terminal says where its cursor is
            self.shown += ESCAPES.sub("", data.decode(errors="replace"))
        return self.shown

    def sends_signals(self):
        return bool(termios.tcgetattr(self.control)[3] & termios.ISIG)

    def type(self, text, until_shown, seconds=60):
        self.read()
        before = len(self.shown)
        os.write(self.control, text.encode())
        until(lambda: until_shown in self.read()[before:], seconds, f"{until_shown!r} is shown after {text!r}")
        return self.shown[before:]


def test_a_person_talks_with_the_model(server, tmp_path):
    terminal = Terminal(tmp_path, "--url", server.url, "--temperature", "0", "--max-tokens", "1900")
    try:
        until(lambda: "/help shows the commands" in terminal.read(), 60, "it has begun")
        assert "Paris" in terminal.type("What is the capital of France?\r", "finish_reason stop")
        os.write(terminal.control, b"Write a story of a thousand words.\r")
        until(terminal.sends_signals, 60, "the line is taken; before, Ctrl-C is a key of the line")
        before = len(terminal.read())
        until(lambda: len(terminal.read()) > before + 200, 60, "the answer streams")
        terminal.type("\x03", "stopped")
        assert terminal.process.poll() is None, "Ctrl-C ends the answer only"
        terminal.type(f"/save {tmp_path}/talk.json\r", "turns are in")
        assert "Paris" in (tmp_path / "talk.json").read_text()
        os.write(terminal.control, b"/quit\r")
        until(lambda: terminal.read() and terminal.process.poll() is not None, 10, "it has ended")
        assert terminal.process.returncode == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.control)
