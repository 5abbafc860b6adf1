"""Only what pyproject.toml cannot say: a wheel carries the numbers and data stages that lie beside the packages."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FILES = ("dvc.yaml", "params.yaml", "constraints.txt", "configs")


class BuildWithProjectFiles(build_py):
    """Copies them to where ``flows/runtime/project.py`` looks outside a checkout."""

    def run(self) -> None:
        """Build, then copy; an editable install reads the checkout's own."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "flows" / "project_files"
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if Path(name).is_dir():
                shutil.copytree(name, target / name, dirs_exist_ok=True)
            else:
                shutil.copy2(name, target / name)


setup(cmdclass={"build_py": BuildWithProjectFiles})
