"The package as setuptools sees it. Every fact comes from settings.ini."
import re
import shutil
from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
NOTEBOOKS = "geminiq/course/notebooks"   # where the lessons lie in the wheel; the repository has them in nbs/


def absolute_links(text: str, repository: str, branch: str) -> str:
    "A README whose links and pictures lead to the repository, for pages that lie elsewhere."
    def absolute(match: re.Match) -> str:
        address = f"{repository}/raw/{branch}" if match[1].startswith("!") else f"{repository}/blob/{branch}"
        return f"{match[1]}({address}/{match[2]})"

    return re.sub(r"(!?\[[^\]]*\])\((?![a-z]+:|#)([^)\s]+)\)", absolute, text)


def lessons(folder: Path) -> list[Path]:
    "The notebooks and pictures of the course, relative to their folder."
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix in (".ipynb", ".png", ".svg"))
    return sorted(path for path in found if not any(part[0] in "._" for part in path.parts))


class BuildWithLessons(build_py):
    "Build the package, and put the lessons into it; an editable installation finds them in nbs/."

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, NOTEBOOKS)
        shutil.rmtree(target, ignore_errors=True)
        for path in lessons(ROOT / "nbs"):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / "nbs" / path, target / path)


def facts(settings: Mapping[str, str]) -> dict:
    "What settings.ini says, in the words of setuptools."
    repository, site = settings["git_url"], settings["doc_host"] + settings["doc_baseurl"]
    hub = settings["hub_requirements"].split()
    course = settings["course_requirements"].split() + hub
    dev = settings["dev_requirements"].split()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return {
        "name": settings["lib_name"],
        "version": settings["version"],
        "description": settings["description"],
        "long_description": absolute_links(readme, repository, settings["branch"]),
        "long_description_content_type": "text/markdown",
        "author": settings["author"],
        "author_email": settings["author_email"],
        "url": site,
        "project_urls": {
            "Documentation": site,
            "Source": repository,
            "Issues": f"{repository}/issues",
            "Changelog": f"{repository}/blob/{settings['branch']}/CHANGELOG.md",
        },
        "keywords": settings["keywords"],
        "license_expression": "MIT",
        "python_requires": f">={settings['min_python']}",
        "install_requires": settings["requirements"].split(),
        "extras_require": {"course": course, "hub": hub, "dev": course + dev},
        "entry_points": {
            "console_scripts": settings["console_scripts"].split(),
            "nbdev": ["geminiq=geminiq._modidx:d"],
        },
        "classifiers": [
            "Development Status :: 3 - Alpha",
            "Framework :: Jupyter",
            "Intended Audience :: Developers",
            "Intended Audience :: Education",
            "Operating System :: OS Independent",
            "Programming Language :: Python :: 3",
            *(f"Programming Language :: Python :: {version}" for version in settings["python_versions"].split()),
            "Topic :: Scientific/Engineering :: Artificial Intelligence",
            "Typing :: Typed",
        ],
    }


if __name__ == "__main__":
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    setup(
        **facts(parser["DEFAULT"]),
        packages=find_packages(include=["geminiq", "geminiq.*"]),
        package_data={"geminiq": ["configs/*.yaml", "configs/*.json", "configs/vision/*.yaml", "explorables/*.js",
                                  "weights/microworld/*", "py.typed"]},
        cmdclass={"build_py": BuildWithLessons},
        zip_safe=False,
    )
