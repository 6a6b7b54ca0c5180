"""Drives `rustydb sql` on a pseudo-terminal: types keys, waits for what must appear, ends with "done"."""

import os
import pty
import re
import select
import sys
import time

ENDLESS = "SELECT count(*) FROM range(0, 1000000) a CROSS JOIN range(0, 1000000) b WHERE a.value + b.value = -1;"


class Prompt:
    """The program under test, and what it has shown since the last look."""

    def __init__(self, binary):
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            os.execv(binary, [binary, "sql", "--data", "d"])
        self.shown = ""

    def expect(self, text):
        """Waits until the text is on the screen; what came before it is forgotten."""
        deadline = time.monotonic() + 120
        while text not in self.shown:
            ready, _, _ = select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                sys.exit(f"waited in vain for {text!r}; on the screen: {self.shown!r}")
            try:
                received = os.read(self.terminal, 65536).decode(errors="replace")
            except OSError:  # Linux's way to say that the other end of a terminal is closed
                sys.exit(f"the program ended before {text!r}; on the screen: {self.shown!r}")
            # Escape sequences move the cursor and choose colours; what counts is the text.
            self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", received)
        self.shown = self.shown.split(text, 1)[1]

    def type(self, keys):
        os.write(self.terminal, keys.encode())

    def end(self):
        """Ctrl-D; the program must end with status 0."""
        self.type("\x04")
        while True:
            try:
                if not os.read(self.terminal, 65536):
                    break
            except OSError:
                break
        _, status = os.waitpid(self.process, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"ended with status {status}")


prompt = Prompt(sys.argv[1])
prompt.expect("\\? for help")
prompt.expect("rustydb> ")

# A statement over two lines runs at its semicolon.
prompt.type("CREATE TABLE person (id BIGINT PRIMARY KEY,\r")
prompt.type("name TEXT);\r")
prompt.expect("CREATE TABLE\r\n")
prompt.expect("rustydb> ")

# Tab completes the table, which did not exist when the prompt started.
prompt.type("INSERT INTO per\t VALUES (1, 'Ada');\r")
prompt.expect("INSERT 1\r\n")
prompt.expect("rustydb> ")

# An error is shown, and the prompt goes on; in a transaction it looks different.
prompt.type("SELECT nam FROM person;\r")
prompt.expect("ERROR 42703: ")
prompt.expect("rustydb> ")
prompt.type("BEGIN;\r")
prompt.expect("rustydb*> ")
prompt.type("ROLLBACK;\r")
prompt.expect("rustydb> ")
prompt.type("\\timing on\r")
prompt.expect("Timing is on.")
prompt.expect("rustydb> ")

# Ctrl-C cancels what runs and keeps the prompt.
prompt.type(ENDLESS + "\r")
prompt.expect("b.value = -1;\r\n")
prompt.type("\x03")
prompt.expect("ERROR 57014: ")
prompt.expect("rustydb> ")

# Ctrl-C while typing drops the line.
prompt.type("SELECT nonsense \x03")
prompt.expect("rustydb> ")
prompt.type("SELECT 41 + 1 AS answer;\r")
prompt.expect(" 42\r\n")
prompt.expect("Time: ")
prompt.expect("rustydb> ")
prompt.end()

# The next start remembers what was typed: arrow up twice is the statement before the last.
prompt = Prompt(sys.argv[1])
prompt.expect("rustydb> ")
prompt.type("\x1b[A")
prompt.expect("SELECT 41 + 1 AS answer;")
prompt.type("\r")
prompt.expect(" 42\r\n")
prompt.expect("rustydb> ")
prompt.type("SELECT name FROM person;\r")
prompt.expect("Ada\r\n")
prompt.expect("rustydb> ")
prompt.end()
print("done")
