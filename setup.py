"""What pyproject.toml cannot say: files of the repository's top go along in the wheel, for `regrow new`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

TOP = ("dvc.yaml", "requirements.lock", "params.yaml", ".gitignore", ".dvcignore")
PLACE = Path("pipeline/new/files")  # pipeline/shipped.py looks there


def shipped() -> list[Path]:
    recipes = (path for path in sorted(Path("recipes").rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return [*map(Path, TOP), *recipes]


class BuildWithFiles(build_py):
    """Copies them into the package. An editable install needs no copy: it finds them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source in shipped():
                target = Path(self.build_lib) / PLACE / source
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())

    def get_source_files(self) -> list[str]:
        """Also what a source distribution must hold to build the wheel from."""
        return [*super().get_source_files(), *map(str, shipped())]


setup(cmdclass={"build_py": BuildWithFiles})
