"""What the data stages make of this recipe, as digests: python -m recipes.small.digests writes digests.json.

The file is in git, and a test compares: a change of the code that changes data shows in a diff, and is somebody's decision.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipeline.configure import link_all
from pipeline.digest import canonical_json
from pipeline.local_files import local_files
from pipeline.options.recipe import load_recipe
from pipeline.progress import Progress
from pipeline.project import Project
from pipeline.runner import execute
from stages.dedupe import STAGE as DEDUPE
from stages.fetch import STAGE as FETCH
from stages.pack import STAGE as PACK
from stages.tokenize import STAGE as TOKENIZE

FOLDER = Path(__file__).parent
PATH = FOLDER / "digests.json"


def data_digests(workspace: Path) -> dict[str, str]:
    """Run fetch, tokenize, dedupe and pack in ``workspace``; the digest of every artifact, by name."""
    recipe = load_recipe(FOLDER / "params.yaml")
    link_all(workspace / "sources", dict(local_files(Project(FOLDER.parents[1]), recipe)))
    found: dict[str, str] = {}
    for stage in (FETCH, TOKENIZE, DEDUPE, PACK):
        outputs, _ = execute(
            stage,
            recipe.view(stage.options),
            data=workspace / "data",
            scratch=workspace / "scratch" / stage.name,
            sources=workspace / "sources",
            identity=stage.name,
            code=stage.name,
            cache=workspace / "cache" / stage.name,
            progress=Progress(),
        )
        found |= {name: artifact.digest for name, artifact in outputs.items()}
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PATH.write_text(canonical_json(data_digests(Path(folder))), encoding="utf-8")
    print(f"Wrote {PATH}. Say in the commit what changed in the data, and why.")
