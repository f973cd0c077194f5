"""The specification's configuration, the schema, the files that are written, and mistyped words."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from geminiq.models.transformer import Transformer
from geminiq.utils.config import (
    PARTS,
    PRESETS,
    Config,
    DataConfig,
    ModelConfig,
    RopeScaling,
    Section,
    TrainingConfig,
    config_schema,
    format_config,
    init_config,
    load_config,
    make_config,
    preset_names,
)
from geminiq.utils.device import UserError
from helpers import LETTERS

SPECIFICATION = Path(__file__).parent / "data" / "specification.yaml"
TEXT = SPECIFICATION.read_text(encoding="utf-8")
SECTIONS: dict[str, type[Section]] = {"model": ModelConfig, "training": TrainingConfig, "data": DataConfig}
KEYS = [(section, key) for section, kind in SECTIONS.items() for key in kind.model_fields]


def on_meta(config: ModelConfig) -> Transformer:
    "A model without weights."
    with torch.device("meta"):
        return Transformer(config)


def refusal(values: dict[str, Any]) -> str:
    "Why a configuration is refused, in one line."
    with pytest.raises(UserError) as error:
        make_config(values)
    assert "\n" not in str(error.value)
    return str(error.value)


# The specification's page

def test_the_specification_loads_verbatim_with_every_value():
    config = load_config(SPECIFICATION)
    written = yaml.safe_load(TEXT)
    for section, values in written.items():
        for key, value in values.items():
            if (section, key) not in {("training", "learning_rate"), ("model", "n_kv_heads")}:
                assert getattr(getattr(config, section), key) == value, key
    assert config.training.learning_rate == 0.0003 and config.training.use_amp is True


def test_the_specification_says_nothing_that_has_no_meaning():
    assert {(section, key) for section, values in yaml.safe_load(TEXT).items() for key in values} <= set(KEYS)


def test_standard_attention_does_not_use_n_kv_heads():
    standard = load_config(SPECIFICATION).model
    assert on_meta(standard).blocks[0].attention.key.weight.shape == (768, 768)
    grouped = load_config(SPECIFICATION, ["model.attention_type=gqa"]).model
    assert on_meta(grouped).blocks[0].attention.key.weight.shape == (4 * 64, 768)


def test_n_kv_heads_waits_for_the_layers_that_use_it():
    config = ModelConfig(n_kv_heads=2, layers=({}, {"attention_type": "gqa"}))
    assert [config.layer(i).n_kv_heads for i in range(2)] == [6, 2]
    assert ModelConfig(**config.model_dump()) == config


@pytest.mark.parametrize(("key", "name"), [(key, name) for key, names in
                                           re.findall(r"^  (\w+): .*# (\w+ \|.*)$", TEXT, re.MULTILINE)
                                           for name in names.split(" | ")])
def test_every_name_in_its_comments_builds_a_model(key: str, name: str):
    model = on_meta(load_config(SPECIFICATION, [f"model.{key}={name}"]).model)
    assert getattr(model.config, key) == name and model.config.d_ff == 4 * model.config.d_model


def test_its_experts_are_those_of_the_comment():
    model = on_meta(load_config(SPECIFICATION, ["model.use_moe=true"]).model)
    assert len(model.blocks[0].feed_forward.experts) == 8 and model.blocks[0].feed_forward.router.top_k == 2


@pytest.mark.parametrize(("written", "read"), [("true", True), ("false", False), ("auto", "auto")])
def test_use_amp_is_auto_true_or_false(written: str, read: bool | str):
    assert load_config(SPECIFICATION, [f"training.use_amp={written}"]).training.use_amp == read


@pytest.mark.parametrize("written", ["3e-4", "'3e-4'", "0.0003", "3.0e-4", "3E-4"])
def test_a_number_is_a_number_however_it_is_written(written: str):
    config = load_config(SPECIFICATION, [f"training.learning_rate={written}"])
    assert config.training.learning_rate == 3e-4


def test_windows_are_at_most_as_long_as_the_longest_text():
    with pytest.raises(UserError, match=r"data\.seq_length 4096 .* model\.max_seq_len 2048"):
        load_config(SPECIFICATION, ["data.seq_length=4096"])
    assert load_config(SPECIFICATION, ["data.seq_length="]).data.seq_length == 2048


SMALL = {
    "vocab_size: 32000": "vocab_size: 320", "d_model: 768": "d_model: 24", "n_layers: 12": "n_layers: 1",
    "d_ff: 3072": "d_ff: 96", "max_seq_len: 2048": "max_seq_len: 32", "seq_length: 512": "seq_length: 16",
    "batch_size: 32": "batch_size: 2", "warmup_steps: 1000": "warmup_steps: 1",
    "max_steps: 100000": "max_steps: 3", "save_every: 1000": "save_every: 2",
    "eval_every: 500": "eval_every: 2"}


@pytest.mark.slow
def test_a_small_copy_of_it_trains(tmp_path: Path):
    text = TEXT
    for large, small in SMALL.items():
        assert large in text
        text = text.replace(large, small)
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.txt").write_text(LETTERS)
    (tmp_path / "data" / "val.txt").write_text(LETTERS.replace("writes to", "thinks of"))

    def train(run: str) -> str:
        command = [sys.executable, "-m", "geminiq", "train", "--config", "mine.yaml", "--output", run]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    first = train("runs/a")
    tokenizer = tmp_path / "tokenizers" / "bpe_32k.model"
    learned = tokenizer.read_bytes(), tokenizer.stat().st_mtime_ns     # written, for the next time …
    assert train("runs/b").replace("runs/b", "runs/a") == first
    assert (tokenizer.read_bytes(), tokenizer.stat().st_mtime_ns) == learned    # … which only reads it
    assert "perplexity" in first and "accuracy" in first
    weights = [(tmp_path / "runs" / run / "step-000003" / "model.safetensors").read_bytes() for run in "ab"]
    assert weights[0] == weights[1]


# The schema

SCHEMA = json.loads((PRESETS / "schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def in_yaml_1_2(text: str) -> Any:
    "As editors read it: 3e-4 is a number."
    class Loader(yaml.SafeLoader):
        pass
    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return yaml.load(text, Loader)


def valid(text: str) -> bool:
    "Whether an editor finds nothing wrong."
    return VALIDATOR.is_valid(in_yaml_1_2(text))


def test_the_schema_in_the_package_is_current():
    assert SCHEMA == config_schema(), "run: geminiq config schema > geminiq/configs/schema.json"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", preset_names())
def test_presets_name_the_schema_say_what_they_are_and_fit_it(name: str):
    text = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
    schema, note = text.splitlines()[:2]
    assert schema == "# yaml-language-server: $schema=schema.json" and re.match(r"# \S.*\.$", note)
    assert valid(text) and valid(format_config(load_config(name)))


def test_the_schema_accepts_the_specification_and_refuses_mistakes():
    assert valid(TEXT)
    for right, wrong in (("d_model: 768", "d_modle: 768"), ('"rmsnorm"', '"rmsnrom"'), ("data:", "dta:"),
                         ("use_amp: true", "use_amp: maybe"), ("top_k: 2", "top_k: 0")):
        assert not valid(TEXT.replace(right, wrong)), wrong
    assert valid("model: {layers: [{attention_type: linear}, {}]}")
    assert not valid("model: {layers: [{attention_typ: linear}]}")


@pytest.mark.parametrize("kind", [*SECTIONS.values(), RopeScaling, Config])
def test_every_key_has_a_meaning(kind: type[Section]):
    properties = kind.model_json_schema()["properties"]
    assert not [key for key, found in properties.items() if not found.get("description")]


# Files that are written

@pytest.mark.parametrize("name", preset_names())
def test_a_written_file_has_every_key_with_its_meaning_and_changes_nothing(name: str, tmp_path: Path):
    init_config(tmp_path / "mine.yaml", name)
    text = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert load_config(tmp_path / "mine.yaml") == load_config(name) and valid(text)
    first, _, *lines = text.splitlines()
    assert Path(first.partition("$schema=")[2]).is_file()
    assert all(re.search(r":.* # \S", line) for line in lines)
    written = yaml.safe_load(text)
    assert list(written) == list(Config.model_fields)
    assert all(list(written[section]) == list(kind.model_fields) for section, kind in SECTIONS.items())


def test_the_lines_for_slower_angles_can_be_put_to_use(tmp_path: Path):
    init_config(tmp_path / "mine.yaml")
    text = re.sub(r"(?m)^    # ", "    ", (tmp_path / "mine.yaml").read_text(encoding="utf-8"))
    text = text.replace("    type: ", "    type: yarn ").replace("    factor: ", "    factor: 4 ")
    (tmp_path / "longer.yaml").write_text(text)
    scaling = load_config(tmp_path / "longer.yaml").model.rope_scaling
    assert scaling is not None and (scaling.type, scaling.factor) == ("yarn", 4)
    assert scaling.original_max_position_embeddings == 32       # a quarter of 128


def test_nothing_is_overwritten_and_nothing_is_left_by_a_mistake(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        init_config(tmp_path / "mine.yaml")
    with pytest.raises(UserError, match="did you mean the preset tiny"):
        init_config(tmp_path / "other.yaml", "tinny")
    assert (tmp_path / "mine.yaml").read_text() == "mine" and not (tmp_path / "other.yaml").exists()


# What is wrong with a word

@st.composite
def mistyped(draw: st.DrawFn) -> tuple[str, str, str]:
    "A section, a key, and the key with a letter left out, doubled, or changed for its neighbour."
    section, key = draw(st.sampled_from(KEYS))
    i = draw(st.integers(0, len(key) - 2))
    wrong = draw(st.sampled_from([key[:i] + key[i + 1:], key[:i] + key[i] + key[i:],
                                  key[:i] + key[i + 1] + key[i] + key[i + 2:]]))
    return section, key, wrong


@given(mistyped())
def test_a_mistyped_key_is_answered_with_the_nearest(mistake: tuple[str, str, str]):
    section, key, wrong = mistake
    if any(wrong in kind.model_fields for kind in SECTIONS.values()):
        return
    message = refusal({section: {wrong: 1}})
    found = re.search(rf"{section}\.{wrong} is unknown, did you mean (\w+)\?", message)
    assert found, message
    assert SequenceMatcher(None, found[1], wrong).ratio() >= SequenceMatcher(None, key, wrong).ratio()


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_a_key_of_another_section_is_sent_there(section: str, key: str):
    for other, kind in SECTIONS.items():
        if key not in kind.model_fields:
            assert f"{other}.{key} is unknown, did you mean {section}.{key}?" in refusal({other: {key: 1}})


@pytest.mark.parametrize(("values", "message"), [
    ({"training": {"use_amp": "maybe"}}, "use_amp is 'maybe', it should be 'auto' or a valid boolean"),
    ({"model": {"norm_type": "rmsnrom"}}, "model.norm_type 'rmsnrom' is unknown: did you mean rmsnorm?"),
    ({"model": {"activation": "rely"}}, "model.activation 'rely' is unknown: did you mean relu?"),
    ({"training": {"schedule": "cosin"}}, "training.schedule 'cosin' is unknown: did you mean cosine?"),
    ({"model": {"rope_scaling": {"type": "yarm", "factor": 2}}},
     "model.rope_scaling.type 'yarm' is unknown: did you mean yarn?"),
    ({"model": {"rope_scaling": {"type": "yarn", "factor": 2, "beta_slow": 64}}},
     "beta_slow 64.0 is not below beta_fast 32.0"),
    ({"model": {"use_moe": True, "top_k": 9}}, "top_k 9 is more than num_experts 8"),
    ({"data": {"val_fraction": 1}}, "data.val_fraction is 1, it should be less than 1"),
])
def test_a_wrong_value_is_named_with_what_would_be_right(values: dict[str, Any], message: str):
    assert message in refusal(values)


@pytest.mark.parametrize(("path", "preset"), [
    ("configs/small_model.yaml", "small"), ("configs/medium-config.yml", "medium"), ("gpt_2", "gpt2"),
    ("tiny_model.yaml", "tiny"), ("Mistral", "mistral"), ("configs/mixtral.yaml", "mixtral")])
def test_a_path_that_leads_nowhere_names_the_preset(path: str, preset: str):
    with pytest.raises(UserError, match=f"did you mean the preset {preset}?"):
        load_config(path)


def test_text_that_is_not_text_and_sections_without_keys(tmp_path: Path):
    (tmp_path / "bad.yaml").write_bytes(b"model: \xff\xfe")
    with pytest.raises(UserError, match="not text in UTF-8"):
        load_config(tmp_path / "bad.yaml")
    (tmp_path / "empty.yaml").write_text("model:\ntraining:\n  max_steps: 5\n")
    assert load_config(tmp_path / "empty.yaml", ["model.d_model=12"]).model.d_model == 12
    changes = ["model.rope_scaling.type=linear", "model.rope_scaling.factor=2"]
    assert load_config("tiny", changes).model.rope_scaling == RopeScaling(
        type="linear", factor=2, original_max_position_embeddings=64)


# Parts and sections

@pytest.fixture(params=list(PARTS))
def own(request: pytest.FixtureRequest) -> Iterator[str]:
    "A part of one's own in a registry."
    registry = PARTS[request.param]
    registry["mine"] = next(registry[name] for name in registry)
    yield request.param
    del registry["mine"]


def test_a_part_of_ones_own_is_known_and_listed(own: str):
    value: Any = {"type": "mine", "factor": 2} if own == "rope_scaling" else "mine"
    section = next((name for name, kind in SECTIONS.items() if own in kind.model_fields), "vision")
    assert make_config({section: {own: value}})
    assert "mine" in json.dumps(config_schema())


def test_the_configuration_imports_no_lesson():
    code = "import sys, geminiq.utils.config; print([name for name in sys.modules if 'geminiq.' in name])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"geminiq\.(models|training|data|generation)", found), found


def test_sections_are_not_changed_by_the_whole():
    data = DataConfig()
    configs = [Config(model=ModelConfig(max_seq_len=length), data=data) for length in (32, 64)]
    assert [config.data.seq_length for config in configs] == [32, 64] and data.seq_length is None


@pytest.mark.parametrize("name", preset_names())
def test_presets_train_as_they_say(name: str):
    config = load_config(name)
    assert on_meta(config.model).config.max_seq_len == config.data.seq_length
