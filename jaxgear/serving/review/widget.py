"""The review in a notebook: one picture at a time, with a button for each class."""

import functools
import html
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxgear.data.images import ImageError
from jaxgear.data.labels import Correction
from jaxgear.errors import GearError, UsageError
from jaxgear.paths import expanded
from jaxgear.serving.review.boxes import BoxFields
from jaxgear.serving.review.decisions import Decision
from jaxgear.serving.review.opening import open_session
from jaxgear.serving.review.session import Session

SHOWN = 384  # pixels of the picture
BUTTONS = 36  # classes that have a button; more are typed
BARS = 4  # probabilities that are shown
PATIENCE = 30  # seconds to wait for a prediction, compilation included
_Path = str | os.PathLike[str]


def review(
    model: _Path,
    new: _Path | Sequence[_Path] = (),
    *,
    data: _Path | None = None,
    queue: _Path | None = None,
    labels: _Path | None = None,
    by: str | None = None,
) -> "Review":
    """Looks at the pictures of a run, or at new ones, and corrects labels, in a notebook.

    As the last line of a cell it shows itself.

    >>> review = jaxgear.review("RUN", "new/")
    >>> review.corrections  # the decisions that hold
    []

    Args:
        model: a run folder; with `new` a bundle will do.
        new: files, folders and patterns, as `predict` takes; empty: the run's own pictures.
        data: where the run's pictures are, if they have moved.
        queue: a CSV with a column `path`: which pictures to review, in which order.
        labels: the corrections file; default: corrections.csv in the run folder.
        by: who decides; default: the login name.

    Raises:
        UsageError, DataError, CheckpointError: one of these cannot be used, or ipywidgets is
            missing.
    """
    sources = [new] if isinstance(new, str | os.PathLike) else new
    session, notes = open_session(
        _path(model),
        [os.fspath(source) for source in sources],
        data=None if data is None else os.fspath(data),
        queue=None if queue is None else _path(queue),
        labels=None if labels is None else _path(labels),
        by=by,
    )
    return Review(session, " ".join(notes))


def _path(name: _Path) -> Path:
    return Path(expanded(os.fspath(name)))


class Review:
    """A review that a notebook shows as widgets. `box` holds them."""

    def __init__(self, session: Session, note: str = ""):
        """Shows the first picture that is to do; UsageError if ipywidgets is missing."""
        widgets = _ipywidgets()
        self.session = session
        self._undoable: list[tuple[int, int]] = []  # index, row
        self.show = widgets.ToggleButtons(
            options=[("all", "all"), ("to do", "open"), ("done", "done")], description="Show"
        )
        self.progress, self.facts = widgets.HTML(), widgets.HTML()
        self.message = widgets.HTML(html.escape(note))
        self.picture = widgets.Image(format="jpeg", width=SHOWN)
        blind = session.predictions is None
        self.map = widgets.ToggleButton(description="Where it looked", disabled=blind)
        self.sides = BoxFields(widgets, self._draw)
        self.reason = widgets.Text(placeholder="why remove it (optional)")
        button = functools.partial(_button, widgets)
        self.back = button("Previous", lambda: self._step(-1))
        self.forth = button("Next", lambda: self._step(1))
        self.accept = button("Accept", self._accept)
        self.remove = button("Remove", self._remove)
        self.undo = button("Undo", self._undo)
        self.typed = widgets.Combobox(options=session.classes, placeholder="type a class")
        self.take = button("Label", lambda: self._label(self.typed.value))
        self.classes = {
            name: button(name.replace("_", " "), functools.partial(self._label, name))
            for name in session.classes[:BUTTONS]
        }
        typing = [self.typed, self.take] if len(session.classes) > BUTTONS else []
        rows = (
            [self.progress, self.show],
            [self.picture, self.facts],
            self.sides.fields,
            [self.message],
            [self.back, self.forth, self.map],
            [self.accept, self.remove, self.reason, self.undo],
            [*self.classes.values(), *typing],
        )
        wrapped = widgets.Layout(flex_flow="row wrap")
        self.box = widgets.VBox([widgets.Box(row, layout=wrapped) for row in rows])
        self.show.observe(lambda change: self._go(0), "value")
        self.map.observe(lambda change: self._draw(), "value")
        todo = session.matching("open")
        self._show(int(todo[0]) if len(todo) else 0)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.box._repr_mimebundle_(**options)

    @property
    def corrections(self) -> list[Correction]:
        """The decision that holds for each picture of the corrections file."""
        self.session.refresh()
        return self.session.decisions.table()

    def close(self) -> None:
        """Ends the predictions and takes the widgets away."""
        self.session.close()
        self.box.close()

    def _accept(self) -> None:
        accepted = self._seen["accept"]
        if not accepted:
            return self._say("Nothing to accept: choose a class.")
        return self._decide(accepted["action"], accepted["label"])

    def _label(self, name: str) -> None:
        if name not in self.session.classes:
            return self._say("No such class.")
        return self._decide("label", name)

    def _remove(self) -> None:
        reason, self.reason.value = self.reason.value.strip(), ""
        self._decide("remove", reason)

    def _undo(self) -> None:
        if not self._undoable:
            return self._say("Nothing to undo.")
        index, row = self._undoable[-1]
        self._show(index)
        return self._decide("undo", row=row)

    def _decide(self, action: Any, label: str = "", row: int = 0) -> None:
        """Writes one decision; goes on to the next picture unless it was an undo."""
        index, version = self._seen["index"], self._seen["version"]
        box = self.sides.corrected if action == "label" else None
        try:
            written, _ = self.session.decide([Decision(index, version, action, label, row, box)])
        except GearError as error:
            return self._say(str(error))
        found = self.session.describe(index)
        if not written:
            self._show(index)
            return self._say(
                f"Nothing was written: {found['by']} was faster. Decide again if you disagree."
            )
        self._say(f"{found['name']}: {label or action}")
        if action == "undo":
            self._undoable.pop()
            return self._show(index)
        self._undoable.append((index, found["version"]))
        return self._go(index + 1)

    def _step(self, step: int) -> None:
        self._go(self._seen["index"] + step, step)

    def _go(self, start: int, step: int = 1) -> None:
        """To the first picture from `start` on that matches, or before it."""
        matching = self.session.matching(self.show.value)
        found = matching[matching >= start] if step > 0 else matching[matching <= start][::-1]
        if len(found):
            self._show(int(found[0]))
        elif len(matching):
            self._show(self._seen["index"])
            self._say("That was the last picture." if step > 0 else "This is the first picture.")
        else:
            self._say("No such pictures.")

    def _show(self, index: int) -> None:
        self._seen: dict[str, Any] = self.session.describe(index)  # as it is shown from now on
        self.sides.show(self._seen["box"])
        self._draw()

    def _draw(self) -> None:
        """The picture, or its map, and what is known of it."""
        session, index = self.session, self._seen["index"]
        self.progress.value = f"{session.done.sum()} of {len(session.pictures)} done"
        probs = session.predictions and session.predictions.wait(index, PATIENCE)
        try:
            content = session.files.jpeg(index, SHOWN)
            if (box := self.sides.corrected) is not None:
                content = session.files.photograph(index, box, SHOWN)
            elif self.map.value and probs is not None:
                content = session.predictions.heat_map(index, int(probs.argmax())) or content
            self.picture.value = content
        except ImageError:
            self.picture.value = b""
        self._seen = session.describe(index)  # once more: its bytes are known now
        self.facts.value = _facts(self._seen, session.classes, probs)
        accepted = self._seen["accept"]
        what = "" if not accepted else accepted["label"] or accepted["action"]
        self.accept.description = f"Accept {what}".strip().replace("_", " ")

    def _say(self, text: str) -> None:
        self.message.value = html.escape(text)


def _ipywidgets() -> Any:
    try:
        import ipywidgets
    except ModuleNotFoundError as error:
        raise UsageError("review needs ipywidgets: pip install 'jaxgear[notebook]'") from error
    return ipywidgets


def _button(widgets: Any, text: str, act: Callable[[], None]) -> Any:
    button = widgets.Button(description=text, layout=widgets.Layout(width="auto"))
    button.on_click(lambda _: act())
    return button


def _facts(found: dict[str, Any], classes: Sequence[str], probs: Any) -> str:
    """HTML of what is known of a picture; all text is escaped."""
    present = "removed" if found["removed"] else found["current"] or "no label"
    rows = [
        ("picture", found["name"]),
        ("label", present + (f" (was {found['label']})" if found["label"] != present else "")),
        ("decided by", found["by"]),
        ("reason", found["note"]),
        ("queue", ", ".join(text for text in found["reason"].values() if text)),
        ("unreadable", found["error"]),
    ]
    if probs is None:
        rows.append(("model", found["predicted"]))
    else:
        best = (-probs).argsort(kind="stable")[:BARS]
        rows += [("model", f"{classes[i]} {probs[i]:.2f}") for i in best]
    cells = (f"<tr><td>{n}&emsp;</td><td>{html.escape(str(t))}</td></tr>" for n, t in rows if t)
    return f"<table>{''.join(cells)}</table>"
