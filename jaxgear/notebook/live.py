"""Outputs of a notebook cell that are replaced in place, such as one bar of progress.

They need no widgets: IPython's display protocol works in JupyterLab, VS Code and Colab, and a saved
notebook keeps what was shown last.
"""

import html
import sys
import time
from typing import Any

REFRESH = 0.25  # seconds between two pictures of a bar


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook (a terminal's IPython is none)."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Live:
    """One output of a cell. Outside a notebook it shows nothing."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, content: Any) -> None:
        """Shows `content` in place of what was shown before."""
        if not in_notebook():
            return
        if self._handle is not None:
            self._handle.update(content)
            return
        from IPython.display import display

        self._handle = display(content, display_id=True)


class Bar:
    """A bar of progress in one output of a cell. Its last state stays in the notebook."""

    def __init__(self) -> None:
        self._live, self._shown = Live(), 0.0

    def move(self, done: int, total: int, text: str, *, now: bool = False) -> None:
        """Shows that `done` of `total` things are done, at most every `REFRESH` seconds.

        The last of all things is always shown, and so is any move with `now`.
        """
        at = time.monotonic()
        if now or done == total or at - self._shown >= REFRESH:
            self._shown = at
            self._live.show(_State(done, total, text))


class Png:
    """The bytes of a PNG file, shown as a picture."""

    def __init__(self, content: bytes):
        self._content = content

    def __repr__(self) -> str:
        return f"<picture of {len(self._content)} bytes>"

    def _repr_png_(self) -> bytes:
        return self._content


class _State:
    """What a bar shows: HTML in a notebook, a line elsewhere."""

    def __init__(self, done: int, total: int, text: str):
        self.done, self.total, self.text = done, total, text

    def __repr__(self) -> str:
        return f"{self.done}/{self.total}  {self.text}"

    def _repr_html_(self) -> str:
        text = html.escape(self.text.rstrip()).replace("  ", "&ensp;")  # HTML joins two spaces
        return (
            f'<progress value="{self.done}" max="{self.total}" style="vertical-align: middle">'
            f"</progress> {self.done}/{self.total}&ensp;{text}"
        )
