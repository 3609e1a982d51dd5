"""Clone, run, compare, and say how it went."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import RegrowError
from pipeline.options.recipe import load_recipe
from pipeline.project import Project
from pipeline.reproduction import otherwise
from pipeline.reproduction.clone import make_clone, uncommitted
from pipeline.reproduction.compare import Verdict, compare
from pipeline.stage import Stage
from pipeline.verification.verify import under


@dataclass(frozen=True)
class Reproduction:
    """``verdicts`` in the order of the pipeline; ``notes`` on how the clone was run; ``kept``: where it is, if it still is."""

    verdicts: Sequence[Verdict]
    notes: Sequence[str]
    kept: Path | None

    @property
    def holds(self) -> bool:
        return all(verdict.holds for verdict in self.verdicts)


def reproduce(
    project: Project, stages: Sequence[Stage], names: Sequence[str], *, workers: int | None, keep: bool, with_changes: bool
) -> Reproduction:
    """Run ``names`` (default: all stages) and what they stand on in a clean clone, and compare every digest with the project's.

    Args:
        workers: processes that tokenize in the clone.
        keep: leave the clone where it is. One that differs is always left.
        with_changes: take files that are not committed along, as they are.

    Raises:
        RegrowError: no git or DVC repository, or what decides results is not committed.
    """
    recipe = load_recipe(project.params)
    changed = uncommitted(project, recipe)
    if changed and not with_changes:
        shown = ", ".join(changed[:8]) + (f" and {len(changed) - 8} more" if len(changed) > 8 else "")
        raise RegrowError(
            f"Not committed: {shown}. A reproduction is of what others can clone.", "Commit, or take them along with --with-changes."
        )
    wanted = [stage for stage in stages if stage.name in names] or list(stages)
    chosen = [stage for stage in stages if any(stage in under(stages, other.name) for other in wanted)]
    scratch = Path(tempfile.mkdtemp(prefix="regrow-reproduce-")).resolve()
    other = otherwise.choose(workers)
    try:
        clone = make_clone(project, scratch, with_changes=changed)
        otherwise.prepare(clone, other)
        otherwise.run(clone, other, [stage.name for stage in wanted], scratch)
        verdicts = compare(project, clone, chosen)
    except BaseException:
        if not keep:
            shutil.rmtree(scratch)
        raise
    keep = keep or not all(verdict.holds for verdict in verdicts)
    if not keep:
        shutil.rmtree(scratch)
    return Reproduction(verdicts, list(_notes(project, clone, other, changed)), clone.root if keep else None)


def _notes(project: Project, clone: Project, other: otherwise.Otherwise, changed: Sequence[str]) -> Iterator[str]:
    lengths = f"a path of {len(str(clone.root))} characters (here {len(str(project.root))})"
    variables = ", ".join(f"{name}={value}" for name, value in other.environment.items())
    yield f"The clone had empty caches, {lengths}, dataset_num_proc {other.workers} (default {os.cpu_count()}), {variables}."
    if changed:
        yield f"It took along what is not committed: {', '.join(changed)}."
