"""Write the table of published models and what the tests compare, from the tests; with --check only say if it is up to date."""

import argparse
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
TESTS = ("test_pretrained.py", "test_pretrained_images.py")
PAGES = ("index", "28_pretrained")   # each has a cell with the id families
FAMILIES = {"GPT2": "GPT-2", "Llama": "LLaMA 1, 2, 3", "Mistral": "Mistral", "Mixtral": "Mixtral",
            "Qwen2": "Qwen 2, 2.5", "Qwen3": "Qwen 3",
            "Qwen3Moe": "Qwen 3 MoE", "Gemma2": "Gemma 2", "Gemma3": "Gemma 3 (text)", "ViT": "ViT", "LLaVA": "LLaVA"}
COMPARED = {"test_logits": "predictions", "test_float32": "in float32", "test_cached_steps": "with a cache",
            "test_gradients": "gradients", "test_eight_training_steps": "training", "test_greedy_and_beam_texts": "texts"}


def counts() -> Counter:
    "How many configurations of each family each test has; a configuration that is tested twice counts once."
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *(str(ROOT / "tests" / test) for test in TESTS)]
    plain = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}   # another listing
    listed = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True).stdout
    found = set(re.findall(r"::(test_\w+)\[(?:\d-)?([^:\]]+): ([^\]]*?)(?:-\d)?\]", listed))
    return Counter((test, family) for test, family, _ in found)


def table() -> str:
    "The table, in Markdown."
    number = counts()
    rows = [["", *COMPARED.values()], ["---"] * (1 + len(COMPARED))]
    rows += [[name, *(str(number[test, family] or "") for test in COMPARED)] for family, name in FAMILIES.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    "Write or compare; 1 if a page is behind."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    checking, text, behind = parser.parse_args().check, table(), []
    for page in PAGES:
        path = ROOT / "nbs" / f"{page}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        cell, = (cell for cell in notebook.cells if cell.id == "families")
        if cell.source == text:
            continue
        behind.append(page)
        if not checking:
            cell.source = text
            nbformat.write(notebook, path)
    if behind and checking:
        print(f"the table of published models in {', '.join(behind)} is behind the tests: run python docs/families.py")
    return int(bool(behind) and checking)


if __name__ == "__main__":
    sys.exit(main())
