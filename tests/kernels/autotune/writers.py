"""`python -m tests.kernels.autotune.writers KILLS SEED`: eight writers of the same entries, one killed every few ms.

Each writer says what it has written, after it was written. Whenever one is killed, every entry is read. One is lost
where none can be read although a writer said so, or where the one in place was finished before a later one of the same
key began, of which a writer said that it was written. One is wrong where its parts do not belong together, or where
something in the cache is no entry. The last line is a JSON object that counts all of this.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from fusetune.kernels.autotune import (
    Entry,
    TuningKey,
    entries_directory,
    list_entries,
    read_entry,
    write_entry,
)

WRITERS = 8
KEYS = [
    TuningKey(f"kernel-{n % 3}", "0a1b", "", "float32", f"2^{n}", "flat", "cpu", "gcc", "3.7.1")
    for n in range(12)
]


def entry_of(key: TuningKey, began_ns: int) -> Entry:
    """The entry that a writer begins to write at a time. All of it follows from both."""
    return Entry(
        key,
        {"BLOCK_SIZE": began_ns % 65536, "num_warps": began_ns % 7},
        rounds=began_ns,
        tuned_at=key.size * 200,
    )


def write_for_ever(to_parent: int, seed: int) -> None:
    """Write entries, and say after each that it is written: the number of its key, when it began, when it ended."""
    rng = random.Random(seed)
    while True:
        number, began = rng.randrange(len(KEYS)), time.monotonic_ns()
        write_entry(entry_of(KEYS[number], began))
        os.write(to_parent, f"{number} {began} {time.monotonic_ns()}\n".encode())


@dataclass
class Story:
    """What happened."""

    kills: int = 0
    killed_while_writing: int = 0
    written: int = 0
    looked_at: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Cache:
    """Eight writers and what they said."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.story = Story()
        self.from_writers, self.to_parent = os.pipe()
        os.set_blocking(self.from_writers, False)
        self.rest = b""
        self.last_began: dict[int, int] = {}
        self.ended: dict[tuple[int, int], int] = {}
        self.writers = [self.fork() for _ in range(WRITERS)]

    def fork(self) -> int:
        """Start a writer."""
        seed = self.rng.randrange(2**32)
        pid = os.fork()
        if pid == 0:
            try:
                write_for_ever(self.to_parent, seed)
            finally:
                os._exit(1)
        return pid

    def listen(self) -> None:
        """Take what the writers said."""
        while True:
            try:
                self.rest += os.read(self.from_writers, 1 << 16)
            except BlockingIOError:
                break
        *lines, self.rest = self.rest.split(b"\n")
        for line in lines:
            number, began, ended = map(int, line.split())
            self.story.written += 1
            self.ended[number, began] = ended
            self.last_began[number] = max(began, self.last_began.get(number, 0))

    def kill_one(self) -> None:
        """Kill a writer wherever it is, look at everything, and start another one."""
        time.sleep(self.rng.uniform(0, 0.02))
        place = self.rng.randrange(WRITERS)
        pid = self.writers[place]
        self.kill(pid)
        self.story.kills += 1
        self.story.killed_while_writing += bool(self.unfinished(pid))
        self.listen()
        self.look()
        self.writers[place] = self.fork()

    def kill(self, pid: int) -> None:
        """Kill a writer, which must still have been writing."""
        os.kill(pid, signal.SIGKILL)
        if os.waitpid(pid, 0)[1] != signal.SIGKILL:
            self.story.wrong.append("a writer ended by itself")

    @staticmethod
    def unfinished(pid: int) -> list[Path]:
        """What a killed writer left behind."""
        directory = entries_directory()
        assert directory is not None
        return list(directory.glob(f"*/.*.{pid}-*.unfinished"))

    def look(self) -> None:
        """Read every entry."""
        for number, began in self.last_began.items():
            self.story.looked_at += 1
            with warnings.catch_warnings(record=True) as notices:
                warnings.simplefilter("always")
                found = read_entry(KEYS[number])
            self.story.wrong += [str(notice.message) for notice in notices]
            if not isinstance(found, Entry):
                self.story.lost.append(f"{KEYS[number].size}: {found.reason}")
            elif found != entry_of(found.key, found.rounds) or found.key != KEYS[number]:
                self.story.wrong.append(str(found))
            elif self.ended.get((number, found.rounds), began) < began:
                self.story.lost.append(f"{KEYS[number].size}: {found.rounds} is in the place of {began}")

    def end(self) -> None:
        """Kill the writers, and look for the last time: at all files too."""
        for pid in self.writers:
            self.kill(pid)
        self.listen()
        self.look()
        directory = entries_directory()
        assert directory is not None
        files = {path for path in directory.rglob("*") if path.is_file() and path.suffix == ".json"}
        if len(list_entries()) != len(files) or len(files) != len(KEYS):
            self.story.wrong.append(
                f"{len(list_entries())} entries in {len(files)} files for {len(KEYS)} keys"
            )


def main(kills: int, seed: int) -> int:
    """Kill so often. Return 1 where something was lost or wrong."""
    cache = Cache(seed)
    try:
        while cache.story.kills < kills or len(cache.last_began) < len(KEYS):
            cache.kill_one()
    finally:
        cache.end()
    print(json.dumps(vars(cache.story)))
    return 1 if cache.story.lost or cache.story.wrong else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
