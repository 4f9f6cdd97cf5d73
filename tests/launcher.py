"""Runs the console scripts in children of a process that has torch loaded: a command takes a fraction of a second.

Reads one JSON request a line and answers it with one. `{"argv", "cwd", "env", "out", "err", "before"}` starts a command
and gives its process id; `{"wait": pid}` gives its exit code, negative for a signal, as `subprocess` does. `before` is
Python that the child runs first: the only way to meet a full disk or a slow phase on purpose.
"""

import importlib
import json
import os
import signal
import sys
import traceback
from importlib.metadata import entry_points

PRELOADED = (
    "torch",
    "peft",
    "safetensors.torch",
    "stateset_agents.training.command",
    "stateset_agents.training.learner",
    "stateset_agents.engines.local",
)


def preload() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    transformers = importlib.import_module("transformers")
    for name in ("AutoModelForCausalLM", "AutoTokenizer", "LlamaForCausalLM", "PreTrainedTokenizerFast"):
        getattr(transformers, name)  # each is imported on first use


def start(request: dict) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
        for number, flags, target in (
            (0, os.O_RDONLY, os.devnull),
            (1, os.O_WRONLY | os.O_CREAT, request["out"]),
            (2, os.O_WRONLY | os.O_CREAT, request["err"]),
        ):
            fd = os.open(target, flags, 0o600)
            os.dup2(fd, number)
            os.close(fd)
        os.chdir(request["cwd"])
        os.environ.update(request["env"])
        exec(compile(request["before"], "before", "exec"), {})  # noqa: S102 - the tests' own code
        (script,) = entry_points(group="console_scripts", name=request["argv"][0])
        sys.argv = request["argv"]
        try:
            script.load()()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    preload()
    for line in sys.stdin:
        request = json.loads(line)
        print(ended(request["wait"]) if "wait" in request else start(request), flush=True)


if __name__ == "__main__":
    main()
