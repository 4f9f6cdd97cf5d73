"""Killed at any instant of its beginning, a run can be begun again by the same command, or resumed."""

import json
import subprocess
import sys

CRASH_AT_EACH_CALL = """
import json, os, sys
from pathlib import Path
from stateset_agents.core.errors import RunFolderError
from stateset_agents.tracking.run_folder import RunFolder

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
calls, die_at = 0, -1

def count(event, _arguments):
    global calls
    if event in EVENTS:
        calls += 1
        if calls == die_at:
            os._exit(77)

def die(n, folder):
    global die_at
    pid = os.fork()
    if pid == 0:
        die_at = n
        sys.addaudithook(count)
        RunFolder.create(folder, config_yaml="a: 1").close()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 77

def goes_on(folder):
    if (folder / "status.json").exists():
        RunFolder.open(folder).close()  # as a supervisor does that adds --resume from then on
    try:
        RunFolder.create(folder, config_yaml="a: 1").close()
        return "begun again"
    except RunFolderError as refused:
        said = str(refused)
    try:
        with RunFolder.open(folder) as run:
            run.lock()
        return "resumed"
    except RunFolderError as refused:
        return f"{said} / {refused} / {sorted(path.name for path in folder.iterdir())}"

root, seen, died = Path(sys.argv[1]), [], True
while died:
    folder = root / str(len(seen))
    died = die(len(seen) + 1, folder)
    seen.append(goes_on(folder))
print(json.dumps(seen))
"""


def test_a_beginning_killed_at_any_file_system_call_is_begun_again_or_resumed(tmp_path):
    """Mutation: the first file that is written is not the one that says what the others are; `open` wants a config."""
    run = subprocess.run(
        [sys.executable, "-c", CRASH_AT_EACH_CALL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    assert len(seen) > 10
    assert seen == sorted(seen)  # the same command until the run is there, and --resume from then on
    assert set(seen) == {"begun again", "resumed"}
