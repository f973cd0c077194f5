"The package as setuptools sees it. Every fact comes from settings.ini."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

parser = ConfigParser(delimiters=["="])
parser.read("settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

hub = settings["hub_requirements"].split()
course = settings["course_requirements"].split() + hub
dev = settings["dev_requirements"].split()

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    keywords=settings["keywords"],
    license="MIT",
    packages=find_packages(include=["geminiq", "geminiq.*"]),
    package_data={"geminiq": ["configs/*.yaml", "configs/vision/*.yaml", "explorables/*.js", "py.typed"]},
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require={"course": course, "hub": hub, "dev": course + dev},
    entry_points={
        "console_scripts": settings["console_scripts"].split(),
        "nbdev": ["geminiq=geminiq._modidx:d"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    zip_safe=False,
)
