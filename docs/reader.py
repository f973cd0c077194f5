"""Turn a notebook as nbdev writes it, with Quarto's directives, into one that Sphinx (through myst-nb) reads the same way."""

import html
import posixpath
import re
from dataclasses import dataclass
from itertools import pairwise

import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from references import linked

TAGS = {  # a directive of Quarto: the tag by which myst-nb knows it
    ("echo", False): "remove-input",
    ("include", False): "remove-cell",
    ("output", False): "remove-output",
}
FENCED = re.compile(r"^(?P<fence>`{3,}|~{3,})(?P<language>[^\n]*)\n"
                    r"(?P<code>.*?)^(?P=fence)[ \t]*$", re.M | re.S)
CALLOUT = re.compile(r"^(?P<colons>:{3,}) *\{(?P<options>[^}\n]*\.callout-(?P<kind>\w+)[^}\n]*)\}\n"
                     r"(?P<body>.*?)^(?P=colons)[ \t]*$", re.M | re.S)
SHOWN = re.compile(r"(?:---\n+)?(?:\[source\]\((?P<source>[^)]*)\)\{[^}]*\}\n+)?"
                   r"^(?P<hashes>#{3,}) (?P<name>\S+)$\n*", re.M)  # how show_doc begins


@dataclass
class Site:
    "What a page must know about the others."
    address: str                  # where it is published: the start of nbdev's links
    repository: str               # where its notebooks lie on GitHub: "geminiq/geminiq"
    branch: str                   # and on which branch: "main"
    pages: dict[str, str]         # a notebook, "museum/07_attention.ipynb": its page, "museum/attention"
    anchors: dict[str, set[str]]  # a page, "start": the names it documents, {"get_device", …}

    def link(self, page: str, target: str, anchor: str) -> str:
        "The way from a page to a name on another: to the name if documented, else to its class or page."
        while anchor and anchor not in self.anchors.get(target, ()):
            anchor = anchor.rpartition(".")[0]
        path = posixpath.relpath(target, posixpath.dirname(page) or ".") + ".ipynb"
        return f"{path}#{anchor}" if anchor else path


def front_matter(notebook: NotebookNode) -> dict:
    "Title, description and address of a notebook that nbdev has processed."
    return yaml.safe_load(notebook.cells[0].source.strip().strip("-"))


def documented(notebook: NotebookNode) -> set[str]:
    "The anchors of all names a processed notebook documents."
    shown = "\n".join(shown_markdown(cell) for cell in notebook.cells if is_shown(cell))
    return {name.lower() for name in re.findall(r"^#+ (\S+)$", shown, re.M)}


def read(notebook: NotebookNode, path: str, site: Site) -> NotebookNode:
    "The processed notebook at `path` as a page: a title, prose, and cells without directives."
    page, cells = site.pages[path], [title(front_matter(notebook), path, site)]
    level = last = 1  # of the prose heading in force, and of the last heading of any kind
    for cell in notebook.cells[1:]:
        if is_shown(cell):
            shown, last = demote(shown_markdown(cell), level, last)
            cells.append(new_markdown_cell(markdown(shown, page, site)))
        elif cell.cell_type == "markdown":
            for hashes in re.findall(r"^(#+) ", CALLOUT.sub("", FENCED.sub("", cell.source)), re.M):
                level = last = len(hashes)
            cells.append(new_markdown_cell(markdown(cell.source, page, site)))
        elif cell.cell_type == "code":
            cells += code(cell)
    return new_notebook(cells=cells, metadata=notebook.metadata)


def title(front: dict, path: str, site: Site) -> NotebookNode:
    "Title, summary, and for a lesson the ways to its notebook."
    lines = [f"# {front['title']}"]
    if "description" in front:
        lines.append("{.summary}\n" + " ".join(front["description"].split()))
    if posixpath.basename(path)[0].isdigit():
        lines.append(ways_in(path, site))
    return new_markdown_cell("\n\n".join(lines))


def ways_in(path: str, site: Site) -> str:
    "Where to get the notebook itself: as a file, in Colab, on one's own machine."
    file = posixpath.relpath("notebooks/" + path, posixpath.dirname(path) or ".")
    colab = f"https://colab.research.google.com/github/{site.repository}/blob/{site.branch}/nbs/{path}"
    return f"""\
::::{{container}} ways-in
{{download}}`Download notebook <{file}>`
[Open in Colab]({colab} "Its first cell must be: %pip install geminiq")

<details>
<summary>Run locally</summary>

```bash
git clone https://github.com/{site.repository}
cd {posixpath.basename(site.repository)}
make lab
```

Then open `{path}`. In Colab instead, the first cell must be `%pip install geminiq`.

</details>
::::"""


# Prose


def markdown(text: str, page: str, site: Site) -> str:
    "Quarto's Markdown in the dialect of myst; what stands in code blocks is left alone."
    parts, end = [], 0
    text = CALLOUT.sub(callout, text)
    for block in FENCED.finditer(text):
        parts += [prose(text[end:block.start()], page, site), fenced(block)]
        end = block.end()
    return "".join([*parts, prose(text[end:], page, site)])


def prose(text: str, page: str, site: Site) -> str:
    "Links, citations, figures, equations and headings."
    folder = posixpath.dirname(page)
    if references := site.pages.get("references.ipynb"):
        text = linked(text, posixpath.relpath(references, folder or ".") + ".ipynb")

    def notebook_link(match: re.Match) -> str:
        target = site.pages.get(posixpath.normpath(posixpath.join(folder, match[1])))
        return f"]({posixpath.relpath(target, folder or '.')}.ipynb" if target else match[0]

    text = re.sub(r"\]\(([\w./-]+\.ipynb)", notebook_link, text)
    text = re.sub(re.escape(site.address) + r"/([\w/.-]+)\.html(?:#([\w.-]+))?",
                  lambda match: site.link(page, match[1], match[2] or ""), text)
    text = re.sub(r'^!\[([^]]*)\]\(([^)]*)\)\{[^}]*fig-alt="([^"]*)"[^}]*\}[ \t]*$',
                  r"```{figure} \2\n:alt: \3\n\n\1\n```", text, flags=re.M)
    text = re.sub(r"(\]\([^)]*\))\{[^}]*\}", r"\1", text)
    text = re.sub(r"\$\$ *\{#(eq-[\w-]+)\}", r"$$ (\1)", text)
    text = re.sub(r"(?<![\w`])@(eq-[\w-]+)", r"Equation {eq}`\1`", text)
    return re.sub(r"^(#+ [^`\s]*?)__(\w+)__", r"\1\\_\\_\2\\_\\_", text, flags=re.M)


def fenced(block: re.Match) -> str:
    "A diagram becomes an element for Mermaid to draw in; other code stays as it is."
    if block["language"].strip(" {}") != "mermaid":
        return block[0]
    return f'```{{raw}} html\n<pre class="mermaid">{html.escape(block["code"])}</pre>\n```'


def callout(block: re.Match) -> str:
    "A callout becomes an admonition, or a fold if collapsed; its title is an option or its first heading."
    options, kind, body = block["options"], block["kind"], block["body"].strip("\n")
    first = re.match(r"#+ (.*)\n", body + "\n")
    named = re.search(r'title="([^"]*)"', options)
    name = named[1] if named else first[1] if first else kind.capitalize()
    if first and not named:
        body = body[first.end():].strip("\n")
    if 'collapse="true"' in options:
        return fold(name, body)
    return f"{block['colons']}{{admonition}} {name}\n:class: {kind}\n\n{body}\n{block['colons']}"


def fold(name: str, body: str) -> str:
    "What opens when its name is chosen."
    return f"<details>\n<summary>{html.escape(name)}</summary>\n\n{body}\n\n</details>\n"


# Documented names


def is_shown(cell: NotebookNode) -> bool:
    "Whether a cell's output is Markdown to be read as part of the page, as that of show_doc is."
    return cell.cell_type == "code" and "#| output: asis" in cell.source


def shown_markdown(cell: NotebookNode) -> str:
    "What such a cell shows."
    broken = [out for out in cell.outputs if out.output_type == "error"]
    if broken:
        raise ValueError(f"{cell.source!r} failed: {broken[0].ename}: {broken[0].evalue}")
    said = [out for out in cell.outputs if out.get("name") != "stderr"]
    return "\n".join(out.get("data", {}).get("text/markdown") or out.get("text", "") for out in said)


def demote(text: str, level: int, last: int) -> tuple[str, int]:
    "Put show_doc's headings below the prose heading they stand under, and its link to the source below them."
    def deeper(match: re.Match) -> str:
        nonlocal last
        last = min(level + len(match["hashes"]) - 2, last + 1, 6)
        name = match["name"].replace("_", r"\_")
        source = "{.source-link}\n[source](" + match["source"] + ")\n\n" if match["source"] else ""
        return f"{'#' * last} {name}\n\n{source}"

    return SHOWN.sub(deeper, text), last


# Code


def code(cell: NotebookNode) -> list[NotebookNode]:
    "A code cell with tags for directives; one for each picture, as myst-nb knows one alt text a cell."
    options = {}
    while found := re.match(r"#\|[ \t]*([^\n]*)\n?", cell.source):
        name, _, value = found[1].partition(":")
        options[name.strip()] = yaml.safe_load(value)
        cell.source = cell.source[found.end():]
    tags = {tag for (name, value), tag in TAGS.items() if options.get(name) is value}
    cells = []
    if options.get("code-fold") is True:
        source = f"~~~~python\n{cell.source}\n~~~~"
        cells.append(new_markdown_cell(fold(options.get("code-summary", "Show the code"), source)))
        if not cell.outputs:
            return cells
        tags.add("remove-input")
    pictures = [i for i, out in enumerate(cell.outputs) if "image/png" in out.get("data", {})]
    for start, end in pairwise([0, *pictures[1:], len(cell.outputs)]):
        part = new_code_cell(cell.source, outputs=cell.outputs[start:end],
                             metadata={"tags": sorted({*tags, "remove-input"} if start else tags), "mystnb": {}})
        if alt := options.get("fig-alt") or picture_alt(part):
            part.metadata.mystnb["image"] = {"alt": alt}
        cells.append(part)
    return cells


def picture_alt(cell: NotebookNode) -> str:
    "The alt text that a picture carries in its metadata or as its plain text."
    for out in cell.outputs:
        if "image/png" in out.get("data", {}):
            return out.metadata.get("image/png", {}).get("alt") or out.data.get("text/plain", "")
    return ""


def slug(heading: str) -> str:
    "The anchor that Quarto (that is, Pandoc) gives to a heading."
    kept = re.sub(r"[^\w\s.-]", "", heading.lower())
    return re.sub(r"^[\W\d_]+", "", re.sub(r"\s+", "-", kept.strip())) or "section"
