"""How Sphinx shows the notebooks; docs/build_site.py writes them, ready to read, to build/site."""

import sys
from configparser import ConfigParser
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.ext.mathjax import html_visit_displaymath, html_visit_math

root = Path(__file__).parents[1]
sys.path.insert(0, str(root / "docs"))  # for reader.slug, below
settings = ConfigParser()
settings.read(root / "settings.ini")
settings = settings["DEFAULT"]


def setup(app: Sphinx) -> None:
    "Leave formulas in the page as TeX, without a script; docs/build_site.py typesets them."
    app.add_html_math_renderer("tex", (html_visit_math, None), (html_visit_displaymath, None))


project, author, release = settings["title"], settings["author"], settings["version"]
project_copyright = settings["copyright"]
extensions = ["myst_nb"]
exclude_patterns = ["notebooks", "vendor/axe-core", "vendor/mathjax/**.js"]

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # a page has no kernel for a widget to talk to
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 6
myst_heading_slug_func = "reader.slug"

html_math_renderer = "tex"
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["course.css", "mathematics.css"]
html_js_files = [("diagrams.js", {"type": "module"}), ("scrolling.js", {"type": "module"})]
html_favicon = "_static/favicon.svg"
html_copy_source = False
text = {"admonition-font-size": "0.9375rem", "admonition-title-font-size": "0.9375rem"}
html_theme_options = {
    "light_css_variables": text | {"color-brand-primary": "#1d4f91", "color-brand-content": "#1d4f91"},
    "dark_css_variables": {"color-brand-primary": "#8ab8ff", "color-brand-content": "#8ab8ff"},
}
