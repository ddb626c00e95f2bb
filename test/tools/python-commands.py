"""Runs Python programs for python-commands.ts.

A line of input is [path of the program, words, what to add to the environment]. The answer, a line, is [exit code, printed, complained]. Each runs in a process of
its own, forked from this one, which keeps the modules that those before have loaded: to load them takes most of a short run.
"""

import gc
import importlib
import json
import os
import runpy
import sys
import tempfile


def main():
    for line in sys.stdin:
        print(json.dumps(run(*json.loads(line))), flush=True)


def run(program, words, environment):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as modules:
        gc.freeze()  # so that a collection in the child does not copy every page that it shares
        child = os.fork()
        if child == 0:
            become(program, words, environment, out, err, modules)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for name in text_of(modules).split():
            keep(name)
        return [code, text_of(out), text_of(err)]


def become(program, words, environment, out, err, modules):
    """Never returns: the program ends the process, as it would end its own."""
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.environ.update(environment)
    there = set(sys.modules)
    sys.argv = [program, *words]
    try:
        runpy.run_path(program, run_name="__main__")
    finally:
        os.write(modules.fileno(), "\n".join(set(sys.modules) - there).encode())
    sys.exit()


def keep(name):
    try:
        importlib.import_module(name)
    except Exception:  # some are made by others and cannot be loaded by their name
        pass


def text_of(file):
    file.seek(0)
    return file.read().decode()


main()
