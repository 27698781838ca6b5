"""An experiment that trains nothing: it writes a run folder, fast, for tests of studies.

A process of it imports no JAX. Its accuracy grows with `peak_lr` up to 3 and differs by seed.
"""

SOURCE = """
import json, os, sys, time
from pathlib import Path

if __name__ != "__main__":
    import dataclasses
    from typing import Annotated
    from jaxgear import experiment

    @dataclasses.dataclass(frozen=True)
    class Config(experiment.Config):
        peak_lr: Annotated[float, experiment.Range(0, 10)] = 0.1
        wide: bool = False
        pause: float = 0.0

    VARIANTS = [{"peak_lr": 1.0}, {"wide": True}]
else:
    words, flags = sys.argv[1:], {}
    while words:
        word = words.pop(0)[2:]
        flags[word] = words.pop(0) if words and not words[0].startswith("--") else True
    run = Path(flags["resume"]) if "resume" in flags else Path(flags["out"]) / "made"
    with open(os.environ["MADE_LOG"], "a") as log:
        log.write(f"{run} {'resumed' if 'resume' in flags else 'begun'}\\n")
    if "resume" in flags:
        flags = json.loads((run / "config.json").read_text()) | flags
    rate, seed = float(flags.get("peak-lr", 0.1)), int(flags["seed"])
    if "test" in flags:
        (run / "test.json").write_text(json.dumps({"accuracy": 0.5 + 0.01 * seed}))
        sys.exit(0)
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps(flags))
    if rate == 9:
        print("error: diverged")
        sys.exit(3)
    if rate == 8:
        print("error: not enough memory")
        sys.exit(1)
    if rate == 7:
        print("error: --data x: not there")
        sys.exit(4)
    table = run / "history.csv"
    head = "epoch,step,train_loss,val_loss,train_accuracy,val_accuracy,learning_rate,seconds\\n"
    rows = table.read_text().splitlines(True)[1:] if table.exists() else []
    for epoch in range(len(rows) + 1, 4):
        time.sleep(float(flags.get("pause", 0)))
        accuracy = 0.2 * epoch + 0.1 * min(rate, 3 - 0.1 * rate) + 0.01 * seed
        rows.append(f"{epoch},{epoch},1.0,{1 - accuracy},0.5,{accuracy},{rate},2.0\\n")
        new = table.with_suffix(".new")
        new.write_text(head + "".join(rows))
        new.rename(table)
    with open(os.environ["MADE_LOG"], "a") as log:
        log.write(f"{run} finished\\n")
"""


def write(folder):
    """Writes made.py in `folder`, and returns its path."""
    path = folder / "made.py"
    path.write_text(SOURCE)
    return path
