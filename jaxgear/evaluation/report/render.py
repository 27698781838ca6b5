"""One HTML page about a run: its training, its mistakes and its data.

The page is complete in one file.
"""

from collections.abc import Sequence

import numpy as np

from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.metrics import METRICS, most_confused, wilson_interval
from jaxgear.evaluation.plots import report as plots_report
from jaxgear.evaluation.plots.figures import MOST_CLASSES
from jaxgear.evaluation.report import page
from jaxgear.evaluation.report import pictures as report_pictures
from jaxgear.evaluation.report import robustness as report_robustness
from jaxgear.evaluation.report.findings import Calibration, Findings
from jaxgear.evaluation.robustness.measure import Beside, Robustness
from jaxgear.training import history

PAIRS = 10  # most confused pairs that are listed


def render(
    run: FinishedRun,
    findings: Findings,
    robustness: Robustness | None = None,
    beside: Sequence[Beside] = (),
) -> str:
    """The page, with `robustness` if it was measured, and that of the runs in `beside`."""
    sections = {
        "training": ("Training", _training(run)),
        "classes": ("Test by class", _classes(findings)),
        "confusion": ("Confusions", _confusion(run, findings)),
        "losses": ("Largest losses", report_pictures.losses(findings)),
        "calibration": ("Calibration", _calibration(findings.calibration, findings.summary["n"])),
        "no-gear": ("No gear", report_pictures.refusals(findings)),
        "robustness": ("Robustness", report_robustness.section(robustness, beside)),
        "data": ("Pictures and their split", report_pictures.splits(run, findings.near_duplicates)),
        "setup": ("Config and environment", _setup(run)),
    }
    return page.document(run.path.resolve().name, sections, _head(run, findings))


def _head(run: FinishedRun, findings: Findings) -> str:
    summary = findings.summary
    return page.facts(
        [
            *((m.on_page, m.text(summary[m.name], 3)) for m in METRICS if m.on_page),
            *([("Refused as no gear", f"{findings.refusals.n:,}")] if findings.refusals else []),
            ("Training pictures", f"{len(run.split('train')):,}"),
            ("Best epoch", f"{run.best.epoch} of {len(run.rows)}"),
        ]
    )


def _training(run: FinishedRun) -> str:
    best = run.best
    parts = [
        page.paragraph(
            f"Lowest validation loss {best.val_loss:.4f} in epoch {best.epoch} (dotted line), with "
            f"accuracy {best.val_accuracy:.4f} there; that epoch's model is tested below. "
            "Training loss is as optimised, with augmentation and the loss's own terms."
        )
    ]
    if sentence := history.overfitting(run.rows):
        parts.append(page.paragraph(sentence[0].upper() + sentence[1:] + "."))
    curves = ""
    for name in ("loss", "accuracy"):
        label = f"Average {name} of every epoch, training and validation; numbers in the table"
        svg = plots_report.to_svg(plots_report.curve(run.rows, name), label)
        curves += page.figure(svg, f"Average {name} by epoch")
    parts.append(f'<div class="pair">{curves}</div>')
    table = page.table(
        "A row an epoch",
        ["epoch", "training loss", "validation loss", "training accuracy", "validation accuracy",
         "learning rate", "seconds"],
        [
            [str(row.epoch), f"{row.train_loss:.4f}", f"{row.val_loss:.4f}",
             f"{row.train_accuracy:.4f}", f"{row.val_accuracy:.4f}", f"{row.learning_rate:.2e}",
             f"{row.seconds:.1f}"]
            for row in run.rows
        ],
    )  # fmt: skip
    return "".join(parts) + page.fold("History of all epochs", table)


def _classes(findings: Findings) -> str:
    rows = []
    for (name, row), counts in zip(
        findings.summary["per_class"].items(), findings.summary["confusion"], strict=True
    ):
        right = counts[len(rows)]
        low, high = wilson_interval(right, row["n"])
        precision, recall, f1 = (
            f"{row[key]:.3f}" if row["n"] else "-" for key in ("precision", "recall", "f1")
        )
        interval = f"{low:.3f} to {high:.3f}" if row["n"] else "-"
        rows.append([name, precision, recall, interval, f1, str(row["n"])])
        if findings.refusals:
            rows[-1].append(str(findings.refusals.by_class[name]))
    table = page.table(
        "Precision, recall and F1 on the test split",
        ["class", "precision", "recall", "95 % interval of recall", "F1", "pictures"]
        + ["refused"] * bool(findings.refusals),
        rows,
    )
    trained_on = "".join(page.paragraph(f"Warning: {line}.") for line in findings.trained_on)
    return (
        trained_on
        + table
        + page.paragraph(
            "Intervals are Wilson's: with few pictures they are wide, and a class with a recall of "
            "1 may still miss some."
        )
    )


def _confusion(run: FinishedRun, findings: Findings) -> str:
    counts, names = np.array(findings.summary["confusion"]), run.classes
    shown, shown_names = most_confused(counts, names, MOST_CLASSES)
    styles = {}
    for i, j in zip(*np.nonzero(shown), strict=True):
        # At most 45 %, so that the number stays readable, light and dark.
        share = 10 + 35 * shown[i, j] / shown[i].sum()
        kind = "right" if i == j else "wrong"
        styles[int(i), int(j)] = f' class="{kind}" style="--share:{share:.0f}%"'
    caption = (
        "Test pictures: a row is the true class, a column the predicted one; empty cells are 0"
    )
    if len(names) > MOST_CLASSES:
        caption += "; the classes with the most mistakes, and all others as one"
    table = page.table(
        caption,
        ["true \\ predicted", *shown_names],
        [
            [name, *(str(n) if n else "" for n in row)]
            for name, row in zip(shown_names, shown, strict=True)
        ],
        kind="confusion",
        styles=styles,
    )
    off = counts * (1 - np.eye(len(names), dtype=int))
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, off.shape), strict=True)]
    rows = [
        [names[i], names[j], str(off[i, j]), f"{off[i, j] / counts[i].sum():.0%}"]
        for i, j in pairs
        if off[i, j]
    ]
    if not rows:
        return table + page.paragraph("No test picture was taken for another class.")
    return table + page.table(
        "Most confused pairs",
        ["true", "predicted", "pictures", "of the true class"],
        rows,
        kind="words",
    )


def _calibration(measured: Calibration, n: int) -> str:
    label = "Share of right predictions by confidence, before and after the temperature"
    tables = {"before": measured.before, f"after, T = {measured.temperature:.2f}": measured.after}
    figure = page.figure(
        plots_report.to_svg(plots_report.reliability(tables), label),
        "Reliability: on the diagonal a probability means what it says",
    )
    values = page.facts(
        [
            ("Calibration error before", f"{measured.error_before:.3f}"),
            ("after", f"{measured.error_after:.3f}"),
            ("Temperature", f"{measured.temperature:.3f}"),
        ]
    )
    rows = [
        [f"{b.low:.2f} to {b.high:.2f}", str(b.n), f"{b.confidence:.3f}", f"{b.accuracy:.3f}"]
        for b in measured.after
    ]
    table = page.table(
        "After the temperature, by confidence",
        ["confidence", "pictures", "mean confidence", "share right"],
        rows,
    )
    return (
        page.paragraph(
            "Probabilities are softmax(logits / T) with T fitted on the validation split. The "
            f"expected calibration error (15 bins) is over {n} test pictures: with few, much of it "
            "is chance."
        )
        + values
        + f'<div class="pair">{figure}</div>'
        + page.fold("Numbers of the diagram", table)
    )


def _setup(run: FinishedRun) -> str:
    config = page.table(
        "Config", ["key", "value"], [[k, str(v)] for k, v in run.config.items()], kind="words"
    )
    flat = []
    for key, value in run.environment.items():
        if isinstance(value, dict):
            flat += [[f"{key}: {name}", str(item)] for name, item in value.items()]
        else:
            flat.append([key, " ".join(map(str, value)) if isinstance(value, list) else str(value)])
    flat.append(["fingerprint of the pictures", run.fingerprint])
    environment = page.table("Environment", ["key", "value"], flat, kind="words")
    return config + environment + page.fold("experiment.py as run", page.code(run.source))
