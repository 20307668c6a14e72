"""A worker process of `vocab` and `prepare`: Beam's harness, with these very modules and none out of the current folder.

local_runner.py starts it as a script: python -P worker.py PIPE FOLDER. Nothing but the standard library is loaded before the
package is in place.
"""

import importlib.util
import os
import shutil
import sys
import threading
from pathlib import Path

SOCKETS: set[str] = set()  # folders of sockets that this process, a parent of workers, serves on


def remove_sockets() -> None:
    """Removes what this process serves its workers on, when it ends without stopping to serve."""
    while SOCKETS:
        shutil.rmtree(SOCKETS.pop(), ignore_errors=True)


def _end_with_parent(pipe: int, folder: str) -> None:
    """Ends this process as soon as the one that started it is gone, for it would go on writing.

    The parent holds the other end of the pipe and writes nothing into it, so a read returns when the parent ends, however
    that comes about. The parent's folder is removed then, which it could not do itself.
    """

    def watch() -> None:
        os.read(pipe, 1)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _load_package() -> None:
    """Puts the package that this file belongs to into sys.modules, whatever other package of its name is on the path."""
    folder = Path(__file__).parents[2]
    name = folder.name
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)


def main() -> None:
    """Runs Beam's harness until the parent process has no more work, or is gone."""
    _end_with_parent(int(sys.argv[1]), sys.argv[2])
    _load_package()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
