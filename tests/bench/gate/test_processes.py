"""Fresh processes: their limits, what they leave behind, and how their failures are told."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from fusetune.bench.errors import InputError, SetupError
from fusetune.bench.gate.processes import Ended, Place, check_import, failure_of, run_process, show_failure


def place(folder: Path, **environment: str) -> Place:
    return Place("head", "head main", folder, sys.executable, environment)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process_id}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(file: Path) -> int:
    """Wait until a process has written its number, and return it."""
    while not file.exists() or not file.read_text().endswith("\n"):
        time.sleep(0.01)
    return int(file.read_text())


def wait_until_gone(process_id: int) -> None:
    while is_alive(process_id):
        time.sleep(0.01)


def test_a_process_runs_in_its_checkout_with_its_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    code = "import os; print(os.getcwd(), os.environ['A'], os.environ['B'], os.environ.get('GIT_DIR'))"
    ended = run_process(python(code), place(tmp_path, A="1", B="1"), environment={"B": "2"})
    assert ended.code == 0
    assert ended.out.split() == [str(tmp_path.resolve()), "1", "2", "None"]
    assert failure_of(ended) == ""


@pytest.mark.parametrize("chosen", [None, ""])
def test_a_process_takes_no_launch_config_that_was_tuned(
    chosen: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One revision's would be found, the other's not. Who wants that sets the variable."""
    monkeypatch.delenv("FUSETUNE_TUNING")
    if chosen is not None:
        monkeypatch.setenv("FUSETUNE_TUNING", chosen)
    ended = run_process(python("import os; print(repr(os.environ['FUSETUNE_TUNING']))"), place(tmp_path))
    assert ended.out.split() == ["'pinned'" if chosen is None else "''"]


GRANDCHILD = """
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open("child", "w") as file:
        file.write(f"{child.pid}\\n")
"""


def test_a_process_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    code = textwrap.dedent(GRANDCHILD) + "time.sleep(600)\n"
    limit = 0.5
    while True:  # until the machine is quick enough for the program to come that far
        ended = run_process(python(code), place(tmp_path), limit_s=limit)
        assert ended.timed_out
        if (tmp_path / "child").exists():
            break
        limit *= 2
    wait_until_gone(wait_for(tmp_path / "child"))
    assert failure_of(ended, limit) == f"it had not ended after {limit:.4g} s"


def test_what_a_process_leaves_behind_is_ended(tmp_path: Path) -> None:
    ended = run_process(python(GRANDCHILD), place(tmp_path))
    assert ended.code == 0
    wait_until_gone(wait_for(tmp_path / "child"))


def test_an_interrupt_ends_the_process_and_what_it_started(tmp_path: Path) -> None:
    code = textwrap.dedent(GRANDCHILD) + "time.sleep(600)\n"
    file = tmp_path / "child"

    def interrupt() -> None:
        wait_for(file)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_process(python(code), place(tmp_path))
    thread.join()
    wait_until_gone(wait_for(file))


def test_a_process_that_ignores_the_request_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusetune.bench.workers.programs.GRACE_S", 0.1)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('on', 'w'); time.sleep(600)"
    )
    limit = 0.5
    while not (tmp_path / "on").exists():
        ended = run_process(python(code), place(tmp_path), limit_s=limit)
        limit *= 2
    assert ended.timed_out
    assert ended.code == -signal.SIGKILL


# Under a shell, in a session of its own, and with a parent that has ended.
HIDDEN = """
    import os, subprocess, sys, time
    code = "import os, time; print(os.getpid(), file=open('child', 'w'), flush=True); time.sleep(600)"
    if not os.fork():
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux has processes that adopt others")
def test_a_process_that_hides_is_ended_too(tmp_path: Path) -> None:
    waits = "while not os.path.exists('child'): time.sleep(0.01)\n"
    ended = run_process(python(textwrap.dedent(HIDDEN) + waits), place(tmp_path))
    assert (ended.code, ended.err) == (0, "")
    assert not is_alive(wait_for(tmp_path / "child"))


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux has processes that adopt others")
def test_a_process_and_all_that_it_started_end_with_a_gate_that_is_killed(tmp_path: Path) -> None:
    program = (
        textwrap.dedent(HIDDEN)
        + "print(os.getpid(), file=open('parent', 'w'), flush=True); time.sleep(600)\n"
    )
    (tmp_path / "program.py").write_text(program)
    code = """
        import sys
        from pathlib import Path
        from fusetune.bench.gate.processes import Place, run_process
        words = ["/bin/sh", "-c", f"{sys.executable} program.py; true"]
        run_process(words, Place("head", "head", Path.cwd(), sys.executable))
    """
    gate = subprocess.Popen(python(code), cwd=tmp_path)
    processes = [wait_for(tmp_path / name) for name in ("parent", "child")]
    gate.kill()
    gate.wait()
    for process in processes:
        wait_until_gone(process)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "raise ValueError('no such layer')",
            "it ended with exit code 1, and said: ValueError: no such layer",
        ),
        ("import sys; print('out'); sys.exit(3)", "it ended with exit code 3, and said: out"),
        ("import sys; sys.exit(7)", "it ended with exit code 7 without a word"),
        ("import os; os.kill(os.getpid(), 9)", "it was ended by SIGKILL without a word"),
        ("print('\\x1b[2J'); raise SystemExit(1)", "it ended with exit code 1, and said: \\x1b[2J"),
    ],
)
def test_a_failure_is_one_sentence(tmp_path: Path, code: str, said: str) -> None:
    assert failure_of(run_process(python(code), place(tmp_path))) == said


def test_the_last_lines_of_a_failure_are_shown() -> None:
    told: list[str] = []
    ended = Ended(1, "", "".join(f"line {number}\n" for number in range(50)), 0.1)
    show_failure(told.append, place(Path()), failure_of(ended), ended)
    assert told == [
        "head main: it ended with exit code 1, and said: line 49",
        *(f"    line {number}" for number in range(42, 50)),
    ]


@pytest.mark.parametrize("code", ["import no_such_module_anywhere", "from sys import nothing", "def"])
def test_what_cannot_be_imported_is_no_regression(tmp_path: Path, code: str) -> None:
    ended = run_process(python(code), place(tmp_path))
    with pytest.raises(SetupError, match="head main: cannot be imported; it says "):
        check_import(ended.last_line, place(tmp_path))


def test_an_error_that_speaks_of_imports_is_a_failure(tmp_path: Path) -> None:
    ended = run_process(python("raise RuntimeError('ImportError: x')"), place(tmp_path))
    check_import(ended.last_line, place(tmp_path))
    assert "RuntimeError: ImportError: x" in failure_of(ended)


def test_a_program_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"head main: has no program './bench\.sh'"):
        run_process(["./bench.sh"], place(tmp_path))


def test_a_program_that_may_not_be_run_is_no_regression(tmp_path: Path) -> None:
    (tmp_path / "bench.sh").write_text("#!/bin/sh\n")
    with pytest.raises(SetupError, match=r"cannot start './bench\.sh'"):
        run_process(["./bench.sh"], place(tmp_path))


def test_an_endless_output_is_read_at_its_end(tmp_path: Path) -> None:
    code = "print('x' * 10_000_000); print('{}')"
    ended = run_process(python(code), place(tmp_path))
    assert ended.last_line == "{}"
    assert len(ended.out) < 5 * 2**20
