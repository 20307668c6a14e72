"""A worker process of `vocab` and `prepare`: Beam's harness, with the modules of this package, not of the current folder.

local_runner.py starts it as a script: python -P worker.py PIPE FOLDER. Only the standard library is loaded before the package
is in sys.modules.
"""

import importlib.util
import os
import shutil
import sys
import threading
from pathlib import Path

SOCKETS: set[str] = set()  # folders of the sockets on which this process serves its workers


def remove_sockets() -> None:
    """Remove the sockets of this process if it exits without closing its servers."""
    while SOCKETS:
        shutil.rmtree(SOCKETS.pop(), ignore_errors=True)


def _end_with_parent(pipe: int, folder: str) -> None:
    """Exit as soon as the parent process has exited, because this process would otherwise continue to write.

    The parent holds the other end of the pipe and never writes to it, so a read returns when the parent exits for any reason.
    Then remove the parent's folder, because a killed parent couldn't.
    """

    def watch() -> None:
        os.read(pipe, 1)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _load_package() -> None:
    """Put this file's package into sys.modules, even if another package of the same name is on the path."""
    folder = Path(__file__).parents[2]
    name = folder.name
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:  # the folder is on a filesystem, so there is a loader
        raise ImportError(f"{folder} is not a package")
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)


def main() -> None:
    """Run Beam's harness until the parent process has no more work or has exited."""
    _end_with_parent(int(sys.argv[1]), sys.argv[2])
    _load_package()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
