"""Write README.md from nbs/index.ipynb; with --check only say whether it is up to date."""

import argparse
import base64
import posixpath
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
HIDDEN = re.compile(r"^#\|[ \t]*(hide|default_exp\b.*|export|include:[ \t]*false)[ \t]*$", re.M)
SILENT = re.compile(r"^#\|[ \t]*echo:[ \t]*false[ \t]*$", re.M)


def readme_files(notebook: NotebookNode) -> dict[Path, bytes]:
    "What the README consists of, itself and its pictures: each file with its content."
    parts, files = [], {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(prose(cell.source))
        elif cell.cell_type == "code" and not HIDDEN.search(cell.source):
            source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip()
            if source and not SILENT.search(cell.source):
                parts.append(f"```python\n{source}\n```")
            for out in cell.outputs:
                if picture := out.get("data", {}).get("image/png"):
                    file = Path("nbs", "images", f"index-{len(files) + 1}.png")
                    files[file] = base64.b64decode(picture)
                    parts.append(f"![{alt_text(out)}]({file.as_posix()})")
                elif "data-explorable" not in out.get("data", {}).get("text/html", "") and (text := printed(out)):
                    parts.append(text)
    return {Path("README.md"): ("\n\n".join(parts) + "\n").encode()} | files


def prose(text: str) -> str:
    "Markdown as GitHub reads it: links from the top of the repository, and diagrams by their plain name."
    def from_top(match: re.Match) -> str:
        return f"]({posixpath.normpath(posixpath.join('nbs', match[1]))}"

    text = re.sub(r'!\[[^]]*\](\([^)]*\))\{[^}]*fig-alt="([^"]*)"[^}]*\}', r"![\2]\1", text)
    text = re.sub(r"\]\((?![a-z]+:|[#/])([^)\s#]+)", from_top, text)
    return re.sub(r"^```\{mermaid\}", "```mermaid", text, flags=re.M).strip()


def alt_text(out: NotebookNode) -> str:
    "What a picture shows, in words."
    alt = out.get("metadata", {}).get("image/png", {}).get("alt") or out.data.get("text/plain", "")
    return " ".join(alt.split())


def printed(out: NotebookNode) -> str:
    "An output in Markdown: its own, or its text in a block."
    data = out.get("data", {})
    if "text/markdown" in data:
        return prose(data["text/markdown"])
    text = data.get("text/plain", out.get("text", "")).rstrip()
    return f"```text\n{text}\n```" if text else ""


def main() -> int:
    "Write the files that differ, or with --check name them."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if anything differs")
    check = parser.parse_args().check
    files = readme_files(nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4))
    changed = [file for file, content in files.items()
               if not (ROOT / file).exists() or (ROOT / file).read_bytes() != content]
    for file in changed:
        if check:
            print(f"{file} is not what nbs/index.ipynb makes of it: run python docs/readme.py")
        else:
            (ROOT / file).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / file).write_bytes(files[file])
            print(f"wrote {file}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
