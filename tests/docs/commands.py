"""Stands in for the programs that the pages call: runs small what trains, and checks the words of what cannot run.

`test_commands.py` puts it into the path under the name of each program: `commands.py python -m harness list backbones`.
Commands of the harness and code from pages run in copies of one process, which has imported what they need: `serve`.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import traceback
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parents[2]

NOT_RUN = {
    "make": "builds an environment or runs the tests",
    "pip": "installs from a package index",
    "venv": "makes an environment",
    "pytest": "runs these tests",
    "benchmarks": "takes minutes, or needs a GPU",
    "mlflow": "starts a server",
    "ray": "starts a cluster",
    "git": "needs the address of the repository",
    "ssh": "needs another machine",
    "chgrp": "needs the group of a lab",
}
"""Programs and Python modules that are not run, and why."""

ONLY_PARSED = {
    "prepare --backbones": "downloads weights",
    "evaluate --checkpoint": "needs a file that its authors publish",
    "report --from-mlflow": "needs a server",
    "publish --yes": "uploads to the internet",
    "tune --recipe": "needs more identities than the generated data has",
}
"""Commands of the harness whose options are read and not followed, and why."""

SMALL = {"--preset": "smoke", "--data-root": "data", "--results": "results"}
"""What a command that trains gets, as far as it does not name it itself; its preset is replaced."""

NEEDED = ("harness.reporting", "harness.worker.pipelines", "onnxscript", "pandas", "timm", "torch._dynamo")
"""Modules that commands import: once in place of in every copy."""

ONE = {"--seeds": "0", "--samples": "1", "--final-seeds": "none"}
"""What such a command gets in place of its own seeds, trials and final runs."""


def harness(words: list[str]) -> None:
    """Runs a command of the harness: as it is, small, or without training."""
    words = [SMALL["--results"] if word == "demo/results" else word for word in words]
    command, options = words[0], {word.partition("=")[0] for word in words[1:]}
    if any(known.split()[0] == command and known.split()[1] in options for known in ONLY_PARSED):
        return parse(words)
    if command == "prepare" and "--run" in options:
        words = [*small(words), "--no-mlflow"]  # what is added stands behind `--`, where it is for `run`
    elif command == "profile" and "--exported" not in options:
        words = [*words, "--dry-run"]
    elif command in ("run", "tune"):
        full_size = options & {"--recipe", "--address"} or "all" in words or "timm:" in " ".join(words)
        words = [*words, "--dry-run", "--from-scratch"] if full_size else small(words)
    if command in ("run", "tune", "evaluate"):
        own_process = options & {"--timeout", "--debug", "--gpus-per-run", "--address"}
        words = words if own_process else [*words, "--debug"]
        tracked = "--mlflow-uri" in options or "MLFLOW_TRACKING_URI" in os.environ
        words = words if tracked else [*words, "--no-mlflow"]
    run("-m", "harness", *words)


def small(words: list[str]) -> list[str]:
    """The command with one seed, or one trial, and a preset that trains for seconds."""
    for option, value in SMALL.items():
        if option not in words:
            words = [*words, option, value]
    words[words.index("--preset") + 1] = SMALL["--preset"]
    for option, value in ONE.items():
        if option in words:
            words[words.index(option) + 1] = value
    if words[0] == "run":
        reuse(words)
    return words


def reuse(words: list[str]) -> None:
    """Copies the runs of a command that other pages have finished, so that they are not repeated."""
    command = [sys.executable, "-P", "-m", "harness", *words, "--dry-run"]
    plan = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    results, finished = Path(words[words.index("--results") + 1]), Path(os.environ["FINISHED_RUNS"])
    for run_id in re.findall(r"\b[0-9a-f]{12}\b", plan):
        for folder in finished.glob(f"*/*/{run_id}"):
            shutil.copytree(folder, results / folder.relative_to(finished), dirs_exist_ok=True)


def parse(words: list[str]) -> None:
    """Reads the options of a command as click does, and stops there."""
    import click

    from harness.cli import cli

    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    command.make_context(words[0], words[1:])


def python(words: list[str]) -> None:
    """A call of the interpreter: a command of the harness, another module, a script, or code from a page."""
    if words[:2] == ["-m", "harness"]:
        return harness([word.replace("RUN_ID", last_run()) if "RUN_ID" in word else word for word in words[2:]])
    module = words[1] if words[0] == "-m" else words[0].removesuffix(".py").replace("/", ".")
    if module.split(".")[0] in NOT_RUN:
        return other(module.split(".")[0], [module, *words])
    if words == ["-"]:
        code = sys.stdin.read()
        words = ["-c", code.replace("RUN_ID", last_run()) if "RUN_ID" in code else code]
    run(*words)


def last_run() -> str:
    """The id of the run that trained last, in place of RUN_ID."""
    found = sorted(Path("results").glob("*/*/*/checkpoint.pt"), key=lambda path: path.stat().st_mtime)
    return found[-1].parent.name


def other(program: str, words: list[str]) -> None:
    """Checks what can be known about a program that is not run: targets, extras and files exist."""
    missing: list[str] = []
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        missing = [word for word in words if word not in targets]
    elif program == "pip":
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = [extra for group in re.findall(r"\[(.*?)\]", " ".join(words)) for extra in group.split(",")]
        missing = [extra for extra in extras if extra not in project["optional-dependencies"]]
    elif program == "benchmarks":
        words = [words[0].replace(".", "/") + ".py"]
    missing += [word for word in words if word.endswith((".py", ".txt")) and not (REPOSITORY / word).is_file()]
    if missing:
        sys.exit(f"{program} knows no {', '.join(missing)}")


def run(*words: str) -> NoReturn:
    """Runs Python with these arguments, in place of this process or in a copy of the one that serves."""
    os.environ["PATH"] = os.environ["PATH_OF_TESTS"]
    if words[0] != "-c" and words[:2] != ("-m", "harness"):
        os.execv(sys.executable, [sys.executable, "-P", *words])  # -P: the folder holds copies of the packages
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(os.environ["COMMAND_SERVER"])
        asked = json.dumps({"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
        socket.send_fds(line, [len(asked).to_bytes(4, "big")], [0, 1, 2])
        line.sendall(asked)
        sys.exit(int.from_bytes(line.recv(1), "big"))


def serve(address: str) -> NoReturn:
    """Imports what most commands need, then runs each command that arrives in a copy of this process."""
    for module in NEEDED:
        importlib.import_module(module)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        while True:
            line, _ = door.accept()
            with line:
                size, streams, *_ = socket.recv_fds(line, 4, 3)
                asked = json.loads(line.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
                if (copy := os.fork()) == 0:
                    for number, stream in enumerate(streams):
                        os.dup2(stream, number)
                    answer(**asked)
                for stream in streams:
                    os.close(stream)
                line.sendall(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]).to_bytes(1, "big"))


def answer(words: list[str], folder: str, environment: dict[str, str]) -> NoReturn:
    """Runs a command in this process, which is a copy, and ends the process."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    code = 1
    try:
        if words[0] == "-c":
            exec(words[1], {"__name__": "__main__"})
            code = 0
        else:
            from harness.cli import main

            sys.argv = ["harness", *words[2:]]
            code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    if name == "serve":
        serve(*arguments)
    python(arguments) if name.startswith("python") else other(name, arguments)
