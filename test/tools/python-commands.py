"""Runs Python programs for python-commands.ts and forked-programs.ts.

Each runs in a process of its own, forked from this one, which keeps the modules that those before have loaded: to load them takes most of a short run.

Without arguments a line of input is [path of the program, words, what to add to the environment]. The answer, a line, is [exit code, printed, complained].
With the path of a socket, which is made, programs run for whoever connects, many at a time: python-command.py does.
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import socket
import sys
import tempfile


def main():
    if len(sys.argv) > 1:
        serve(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(run(*json.loads(line))), flush=True)


def run(program, words, environment):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull) as nothing:
        child, modules = fork(program, words, environment, [nothing.fileno(), out.fileno(), err.fileno()])
        with modules:
            keep(modules.read())
        return [exit_code(child), text_of(out), text_of(err)]


def serve(path):
    with socket.socket(socket.AF_UNIX) as door, selectors.DefaultSelector() as waiting:
        door.bind(path)
        door.listen()
        waiting.register(door, selectors.EVENT_READ)
        print(flush=True)  # it can be connected to
        while True:
            for key, _ in waiting.select():
                if key.fileobj is door:
                    asker = door.accept()[0]
                    child, modules = begin(asker)
                    waiting.register(modules, selectors.EVENT_READ, (asker, child))
                    continue
                asker, child = key.data
                waiting.unregister(key.fileobj)
                with key.fileobj as modules, asker:
                    keep(modules.read())
                    asker.sendall(str(exit_code(child)).encode())


def begin(asker):
    """What is asked is [path of the program, words, environment], sent with the three standard streams."""
    request, streams, _, _ = socket.recv_fds(asker, 65536, 3)
    while more := asker.recv(65536):
        request += more
    try:
        return fork(*json.loads(request), streams)
    finally:
        for stream in streams:
            os.close(stream)


def fork(program, words, environment, streams):
    """Returns the process, and a file with the names of the modules that it has loaded; nothing can be read of that before it ends."""
    gc.freeze()  # so that a collection in the child does not copy every page that it shares
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        become(program, words, environment, streams, writer)
    os.close(writer)
    return child, open(reader)


def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def become(program, words, environment, streams, modules):
    """Never returns: the program ends the process, as it would end its own."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.environ.update(environment)
    there = set(sys.modules)
    sys.argv = [program, *words]
    try:
        runpy.run_path(program, run_name="__main__")
    finally:
        os.write(modules, "\n".join(set(sys.modules) - there).encode())
    sys.exit()


def keep(names):
    for name in names.split():
        try:
            importlib.import_module(name)
        except Exception:  # some are made by others and cannot be loaded by their name
            pass


def text_of(file):
    file.seek(0)
    return file.read().decode()


main()
