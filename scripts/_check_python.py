"""Say what this Python lacks to build the project, and exit with status 1; else say nothing.

Runs on any Python, however old: it is how an old one is found out.
"""

import os
import sys
import sysconfig


def lacking():
    """Return the message for the user, or None."""
    if sys.version_info < (3, 10) or sys.implementation.name != "cpython":
        return (
            "ggml-concurrent needs CPython 3.10 or newer; %s is %s %d.%d. Install a newer one, or "
            "name it in the environment variable PYTHON."
            % ((sys.executable, sys.implementation.name) + sys.version_info[:2])
        )
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        return (
            "%s has no header files (Python.h), which the extension module is compiled with. "
            "Install them (Debian, Ubuntu: apt install python3-dev; Fedora: dnf install "
            "python3-devel), or name another Python in the environment variable PYTHON."
            % sys.executable
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return (
            "%s cannot make virtual environments. Install its venv module (Debian, Ubuntu: apt "
            "install python3-venv), or name another Python in the environment variable PYTHON."
            % sys.executable
        )
    return None


if __name__ == "__main__":
    sys.exit(lacking())
