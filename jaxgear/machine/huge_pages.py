"""Large arrays in pages of 2 MiB: a training step on a CPU is 1.1 to 1.3 times as fast.

XLA asks for its outputs and temporaries anew in each step, and glibc takes them from the system and
gives them back: a step of a small network spends a fifth of its time in page faults, of 4 KiB each.
glibc can ask for huge pages (`glibc.malloc.hugetlb`, glibc 2.35), but is told so only as the
process starts, so a program that wants them is started once more. A value of yours is kept
(`GLIBC_TUNABLES=glibc.malloc.hugetlb=0`: no huge pages).
"""

import os
import sys
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb"


def restart_with_huge_pages() -> None:
    """Replaces this process by itself with huge pages; nothing where it has them or there are none.

    The same interpreter, arguments and process id. To be called before anything else is imported.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or TUNABLE in tunables or not _on_request():
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{TUNABLE}=1"]))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _on_request() -> bool:
    """Whether the kernel gives huge pages to those who ask."""
    try:
        setting = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return False
    return "[madvise]" in setting
