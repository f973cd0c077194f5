"""Chat templates as weapons: each ends soon, with a text or a refusal in one line, and reaches nothing."""

import random
import time

import pytest
from harness import n_cases

from geminiq.data.pretrained_tokenizer import _render
from geminiq.utils.device import UserError

GREEDY = ["{{ 'a' * 10 ** 10 }}", "{{ [0] * 10 ** 10 }}", "{{ 10 ** 10 ** 8 }}", "{{ 'a' | center(10 ** 10) }}",
    "{{ '%10000000000d' % 1 }}",
          "{{ '{:>10000000000}'.format(1) }}", "{{ 'a'.ljust(10 ** 10) }}", "{% set s = 'a' * 10 ** 7 %}{{ s.replace('a', s) }}",
          "{{ [1, 2] | batch(10 ** 10, 'x') | list }}",
          "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
          "{% set ns = namespace(x=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
          "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
          "{% set a = 'x' * 1000 %}" + "{% for b in a %}" * 4 + "{% endfor %}" * 4,
          "{% macro f(n) %}{% for i in range(9) %}{{ f(n + 1) }}{% endfor %}{% endmacro %}{{ f(0) }}",
          "{{ '1' * 10 ** 7 }}" * 3, "{{ messages | tojson(indent=10 ** 10) }}", "{{ strftime_now('%999999999Y') }}",
          "{{ 'a' | wordwrap(0) }}",
          "{{ (1).to_bytes(10 ** 10) }}", "{{ " + "(" * 10_000 + " 1 " + ")" * 10_000 + " }}",
          "{% if 1 %}" * 3000, "{{ '" + "x" * 10 ** 6 + "' }}",
          # and, by `make fuzz`, some more that take their seconds
          "{% set ns = namespace(x=()) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
          "{{ ('a' * 10 ** 8) | indent(10 ** 8) }}", "{{ lipsum(n=10 ** 6) }}"]
PIECES = ["{{", "}}", "{%", "%}", "for m in messages", "endfor", "if", "endif", "set x =", "m", "x", "messages", "[0]",
    ".role", ".content", "['role']",
          "| trim", "| tojson", "| length", "~", "+", "*", "**", "'a'", "\"\n\"", "range(9)", "namespace()",
          "raise_exception('no')", "10", "loop.index",
          "macro f()", "endmacro", "f()", "generation", "endgeneration", "is defined", "break", "{#", "#}", "-", "none", "(",
          ")", "[", "]", "\x1b[2J", "é"]
TALK = {"messages": [{"role": "user", "content": "Hello"}], "add_generation_prompt": True}


def render(template: str) -> None:
    "A text, or one line, within seconds."
    start = time.monotonic()
    try:
        assert isinstance(_render(template, **TALK), str)
    except UserError as error:
        assert len(str(error)) < 500 and str(error).isprintable(), error
    assert time.monotonic() - start < 25


@pytest.mark.parametrize("template", GREEDY[:n_cases(len(GREEDY) - 3)], ids=range(len(GREEDY[:n_cases(len(GREEDY) - 3)])))
def test_greed_ends(template: str) -> None:
    render(template)


def test_nonsense() -> None:
    for case in range(n_cases(150)):
        draw = random.Random(case)
        template = " ".join(draw.choices(PIECES, k=draw.randrange(1, 14)))
        try:
            render(template)
        except AssertionError as error:
            raise AssertionError(f"case {case}: {template!r}") from error


def test_what_a_template_is_given_can_be_sent() -> None:
    nested: list = []
    for _ in range(10**5):
        nested = [nested]
    for wrong in (object(), {1, 2}, nested, {("a", "b"): 1}):
        with pytest.raises(UserError, match="can be given texts, numbers, lists and tables alone"):
            _render("{{ x }}", x=wrong)
    assert _render("{{ x }}{{ y[1] }}{{ z.a }}", x="\ud800é", y=(1, 2), z={"a": None}) == "\ud800é2None"
