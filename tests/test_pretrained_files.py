"""Folders of published models as they are found: in two layouts, in shards, written by us, damaged, hostile, on a hub."""

import json
import os
import pickle
import re
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from geminiq.data.tokenizer import train_tokenizer
from geminiq.generation.generate import generate_text
from geminiq.generation.sampling import Sampling
from geminiq.models.pretrained import _to_hf, load_pretrained, save_pretrained
from geminiq.models.transformer import Transformer
from geminiq.training.losses import build_objective
from geminiq.training.optimizer import configure_optimizer
from geminiq.training.trainer import train_step
from geminiq.utils.config import ModelConfig
from geminiq.utils.device import UserError, make_generator
from helpers import PEAK_MEMORY, VOCAB, Case, reference, relative, scatter_weights, texts, tiny_model
from test_pretrained import CASES, FIRST


def write(case: Case, folder: Path, **how: str) -> transformers.PreTrainedModel:
    "A reference in a folder."
    theirs = reference(case).float()
    theirs.save_pretrained(folder, **how)
    return theirs


def same(ours: Transformer, theirs: transformers.PreTrainedModel) -> bool:
    "Whether both predict the same in float32."
    tokens, _ = texts()
    with torch.no_grad():
        return relative(ours.float().eval()(tokens), theirs.float().eval()(tokens).logits) < 1e-5


def edit(path: Path, change: Callable[[dict], None]) -> None:
    "Change a JSON file."
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# The layouts that people have on disk


@pytest.mark.parametrize("family", FIRST)
def test_shards(family: str, tmp_path: Path) -> None:
    theirs = write(FIRST[family], tmp_path / "published", max_shard_size="4KB")
    assert len(list((tmp_path / "published").glob("model-*.safetensors"))) > 2
    assert same(load_pretrained(tmp_path / "published").model, theirs)


def test_gpt2_as_it_was_published(tmp_path: Path) -> None:
    "No word in front of the names, and masks among the weights."
    theirs = write(FIRST["GPT2"], tmp_path / "published")
    file = tmp_path / "published" / "model.safetensors"
    weights = {name.removeprefix("transformer."): weight for name, weight in load_file(file).items()}
    for i in range(3):
        weights[f"h.{i}.attn.bias"] = torch.ones(1, 1, 48, 48).tril()
        weights[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, file)
    assert same(load_pretrained(tmp_path / "published").model, theirs)


@pytest.mark.parametrize("what", ["1: a key for every head", "3: scaled", "scaled evenly"])
def test_rotation_as_it_was_written_before(what: str, tmp_path: Path) -> None:
    "rope_theta beside everything else, rope_scaling beside it; angles among the weights; defaults left out."
    theirs = write(next(case for case in CASES if case.what == what), tmp_path / "published")

    def before(settings: dict) -> None:
        rope = settings.pop("rope_parameters")
        settings["rope_theta"] = rope.pop("rope_theta")
        settings["rope_scaling"] = None if rope["rope_type"] == "default" else rope
        if rope["rope_type"] == "linear":
            rope["type"] = rope.pop("rope_type")
        for silent in ("attention_bias", "mlp_bias", "head_dim", "tie_word_embeddings", "rms_norm_eps", "hidden_act"):
            del settings[silent]

    edit(tmp_path / "published" / "config.json", before)
    file = tmp_path / "published" / "model.safetensors"
    save_file(load_file(file) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}, file)
    assert same(load_pretrained(tmp_path / "published").model, theirs)


def test_gemma3_as_it_was_written_before(tmp_path: Path) -> None:
    theirs = write(next(case for case in CASES if case.what == "near and far"), tmp_path / "published")

    def before(settings: dict) -> None:
        rope = settings.pop("rope_parameters")
        settings["rope_theta"] = rope["full_attention"].pop("rope_theta")
        settings["rope_scaling"] = rope["full_attention"]
        settings["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        settings["sliding_window_pattern"] = settings.pop("_sliding_window_pattern")
        for silent in ("layer_types", "tie_word_embeddings", "hidden_activation", "attn_logit_softcapping"):
            del settings[silent]

    edit(tmp_path / "published" / "config.json", before)
    assert same(load_pretrained(tmp_path / "published").model, theirs)


def test_numbers_keep_their_format_or_get_another(tmp_path: Path) -> None:
    theirs = write(FIRST["Llama"], tmp_path / "published").bfloat16()
    theirs.save_pretrained(tmp_path / "halved")
    for dtype, expected in ((None, torch.bfloat16), (torch.float64, torch.float64)):
        model = load_pretrained(tmp_path / "halved", dtype).model
        assert {p.dtype for p in model.parameters()} == {expected}
        assert all(p.requires_grad for p in model.parameters())


def test_images_and_classes(tmp_path: Path) -> None:
    for head in (True, False):
        kind = transformers.ViTForImageClassification if head else transformers.ViTModel
        theirs = kind(transformers.ViTConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=24,
                                             image_size=12, patch_size=4, num_labels=5)).double().eval()
        with torch.no_grad():
            for p in theirs.parameters():
                p.normal_(0, 0.4, generator=make_generator(p.numel()))
        theirs.save_pretrained(tmp_path / str(head))
        ours = load_pretrained(tmp_path / str(head)).model.eval()
        images = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=make_generator(0))
        with torch.no_grad():
            expected = theirs(images)
            assert relative(ours(images), expected.logits if head else expected.last_hidden_state) < 1e-9


# What people have, although it is unusual


def head_of(folder: Path, change: Callable[[Tensor], Tensor]) -> None:
    "Give a tied model's file a head."
    weights = load_file(folder / "model.safetensors")
    table = next(name for name in weights if name.endswith(("embed_tokens.weight", "wte.weight")))
    save_file(weights | {"lm_head.weight": change(weights[table])}, folder / "model.safetensors")


@pytest.mark.parametrize("what", ["tied", "2: grouped, tied", "capped"])
def test_a_head_of_its_own_in_a_tied_model_is_kept(what: str, tmp_path: Path) -> None:
    write(next(case for case in CASES if case.what == what), tmp_path / "published")
    head_of(tmp_path / "published", Tensor.clone)
    assert load_pretrained(tmp_path / "published").model.config.tie_embeddings     # the same once more
    head_of(tmp_path / "published", lambda table: table.flip(0).contiguous())
    with pytest.warns(UserWarning, match="the weights have a head of their own: it is kept"):
        ours, _, settings = load_pretrained(tmp_path / "published")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "published", attn_implementation="eager")
    assert not ours.config.tie_embeddings and not settings["tie_word_embeddings"] and same(ours, theirs)
    for wrong, message in ((lambda table: table[1:].clone(), "does not fit its config.json: 1: lm_head"),
                           (lambda table: table * torch.nan, "not finite")):
        head_of(tmp_path / "published", wrong)
        with pytest.raises(UserError, match=message), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_pretrained(tmp_path / "published")


def test_the_single_file_comes_before_an_index(tmp_path: Path) -> None:
    "An index that was left behind is of older weights."
    write(FIRST["Llama"], tmp_path / "published", max_shard_size="8KB")
    newer = write(FIRST["Llama"], tmp_path / "newer")
    with torch.no_grad():
        newer.model.norm.weight.mul_(2)
    newer.save_pretrained(tmp_path / "newer")
    os.replace(tmp_path / "newer" / "model.safetensors", tmp_path / "published" / "model.safetensors")
    assert same(load_pretrained(tmp_path / "published").model, newer)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_of_both_kinds(zipped: bool, tmp_path: Path) -> None:
    theirs = write(FIRST["GPT2"], tmp_path / "published")
    file = tmp_path / "published" / "model.safetensors"
    torch.save(load_file(file), tmp_path / "published" / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    file.unlink()
    assert same(load_pretrained(tmp_path / "published").model, theirs)


UNUSUAL: dict[str, tuple[str, dict]] = {
    "computed in slices": ("Llama", {"pretraining_tp": 2}), "not quantized": ("Llama", {"quantization_config": None}),
    "nulls": ("Llama", {"rope_parameters": None, "head_dim": None, "num_key_value_heads": None, "layer_types": None}),
    "no layers apart": ("Qwen3Moe", {"mlp_only_layers": None}), "no kinds": ("Gemma2", {"layer_types": None}),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_the_unusual_is_read(what: str, tmp_path: Path) -> None:
    family, settings = UNUSUAL[what]
    write(FIRST[family], tmp_path / "published")
    edit(tmp_path / "published" / "config.json", lambda found: found.update(settings))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "published", attn_implementation="eager",
                                                               experts_implementation="eager")
    ours = load_pretrained(tmp_path / "published").model
    assert not ours.training and same(ours, theirs)


def test_yarn_as_it_was_written_before(tmp_path: Path) -> None:
    "As Qwen 2.5 recommends it."
    write(FIRST["Qwen2"], tmp_path / "published")

    def before(found: dict) -> None:
        del found["rope_parameters"]
        found |= {"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12}}

    edit(tmp_path / "published" / "config.json", before)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "published", attn_implementation="eager")
    assert theirs.config.rope_parameters["rope_type"] == "yarn"
    assert same(load_pretrained(tmp_path / "published").model, theirs)


@pytest.mark.parametrize("settings", [{"num_labels": 5, "id2label": None}, {"id2label": {str(i): "x" for i in range(5)}},
                                      {"num_labels": 5, "patch_size": [4, 4], "image_size": [12, 12]}], ids=str)
def test_classes_by_number_or_by_name(settings: dict, tmp_path: Path) -> None:
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
                                    image_size=12, patch_size=4, num_labels=5)
    theirs = transformers.ViTForImageClassification(config)
    theirs.save_pretrained(tmp_path)
    edit(tmp_path / "config.json", lambda found: (found.pop("id2label", None), found.update(settings)))
    images = torch.randn(2, 3, 12, 12, generator=make_generator(0))
    with torch.no_grad():
        assert relative(load_pretrained(tmp_path).model(images), theirs.eval()(images).logits) < 1e-5


def test_the_folder_of_an_adapter_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "some/model"}')
    with pytest.raises(UserError, match="is an adapter for some/model, not a model: load that one, then load_adapter"):
        load_pretrained(tmp_path)


# Written here, read by others


def own(**choices: object) -> Transformer:
    "A model of ours with weights of a size at which every one counts."
    return scatter_weights(tiny_model(vocab_size=VOCAB, max_seq_len=48, n_layers=3, **choices).float(), 0.3, 0.3).eval()


WINDOW = {"attention_type": "sliding_window", "sliding_window": 5}
EXPERTS = {"use_moe": True, "num_experts": 4, "top_k": 2, "d_ff": 12}
GPT2_OURS = {"norm_type": "layernorm", "ffn_type": "standard", "activation": "gelu_tanh", "pos_encoding": "learned", "bias": True}
GEMMA_OURS = {"norm_type": "rmsnorm_plus_one", "norm_placement": "sandwich", "ffn_type": "geglu", "activation": "gelu_tanh",
              "scale_embeddings": True, "head_dim": 8, "attention_scale": 5 ** -0.5}
WRITABLE = {
    "llama": [{"activation": "gelu_tanh"}, {"tie_embeddings": False, "attention_type": "gqa", "n_kv_heads": 1, "bias": True},
              {"rope_scaling": {"type": "llama3", "factor": 4.0, "original_max_position_embeddings": 24}, "rope_base": 500.0,
               "head_dim": 10},
              {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12, "beta_fast": 8.0}}],
    "gpt2": [GPT2_OURS, GPT2_OURS | {"activation": "gelu", "tie_embeddings": False, "d_ff": 20}],
    "qwen2": [{"attention_bias": True, "attention_output_bias": False, "n_kv_heads": 2, "attention_type": "gqa",
               "layers": ({}, WINDOW, WINDOW)}],
    "qwen3": [{"qk_norm": True, "head_dim": 10, "layers": ({}, {}, WINDOW)}, {"qk_norm": True, "attention_bias": True}],
    "qwen3_moe": [EXPERTS | {"qk_norm": True, "norm_topk_prob": False},
                  EXPERTS | {"qk_norm": True, "layers": ({}, {"use_moe": False, "d_ff": 20}, {})}],
    "gemma2": [GEMMA_OURS | {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0, "layers": (WINDOW, {}, WINDOW)}],
    "gemma3_text": [GEMMA_OURS | {"qk_norm": True, "rope_base": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0},
                                  "layers": (WINDOW | {"rope_base": 100.0, "rope_scaling": None}, {}, {})}],
    "mistral": [{"attention_type": "sliding_window", "sliding_window": 5, "n_kv_heads": 2}, {"activation": "gelu"}],
    "mixtral": [{"use_moe": True, "num_experts": 3, "top_k": 2}, {"use_moe": True, "num_experts": 5, "top_k": 4, "d_ff": 20,
                "attention_type": "sliding_window", "sliding_window": 3, "rope_scaling": {"type": "linear", "factor": 2.0}}],
}


@pytest.mark.parametrize("shard", ["5GB", "6KB"])
@pytest.mark.parametrize(("kind", "choices"), [(kind, one) for kind, several in WRITABLE.items() for one in several], ids=str)
def test_others_load_what_we_write(kind: str, choices: dict, shard: str, tmp_path: Path) -> None:
    model, (tokens, _) = own(**choices), texts()
    folder = save_pretrained(tmp_path / "ours", model, kind, max_shard_size=shard)
    assert (folder / "model.safetensors").exists() == (shard == "5GB")
    theirs, told = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    assert theirs.config.model_type == kind
    theirs.eval()
    if kind in ("mixtral", "qwen3_moe"):
        theirs.config._experts_implementation = "eager"
    with torch.no_grad():
        assert relative(model(tokens), theirs(tokens).logits) < 1e-5
    back = load_pretrained(folder).model
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), back.parameters(), strict=True))
    theirs.save_pretrained(tmp_path / "theirs")
    assert same(load_pretrained(tmp_path / "theirs").model, theirs)


@pytest.mark.parametrize(("kind", "choices", "named"), [
    ("llama", {"norm_type": "layernorm"}, "norm_type 'layernorm'"), ("llama", {"use_moe": True}, "use_moe True"),
    ("llama", {"attention_type": "sliding_window"}, "attention_type 'sliding_window'"), ("mistral", {"bias": True}, "bias True"),
    ("mixtral", {"use_moe": True, "norm_topk_prob": False}, "norm_topk_prob False"), ("mixtral", {}, "use_moe False"),
    ("llama", {"layers": ({"pos_encoding": "none"}, {})}, "pos_encoding 'none'"), ("llama", {"qk_norm": True}, "qk_norm True"),
    ("llama", {"rope_scaling": {"type": "ntk", "factor": 2.0}}, "rope scaling 'ntk'"), ("lama", {}, "format 'lama' is unknown"),
])
def test_what_a_format_cannot_express_is_refused(kind: str, choices: dict, named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(named)):
        save_pretrained(tmp_path / "ours", own(**choices), kind)
    assert not list(tmp_path.iterdir())


# Damaged and hostile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    "A good one, in shards."
    write(FIRST["Llama"], tmp_path / "published", max_shard_size="8KB")
    return tmp_path / "published"


def shard(folder: Path) -> Path:
    "One of its files."
    return sorted(folder.glob("model-*.safetensors"))[1]


class Trap:
    "A pickle that runs something."

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder / "sprung"),)


def truncate(folder: Path) -> None:
    shard(folder).write_bytes(shard(folder).read_bytes()[:-10])


def claim(folder: Path) -> None:
    shard(folder).write_bytes(struct.pack("<Q", 200_000_000) + b"{}")


def replace(folder: Path, change: Callable[[Tensor], Tensor]) -> None:
    weights = load_file(shard(folder))
    name = sorted(weights)[0]
    save_file(weights | {name: change(weights[name])}, shard(folder))


def index_of(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "model.safetensors.index.json", change)


def settings_of(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", lambda settings: settings.update(values))


DAMAGES = {
    "truncated": (truncate, "is not a readable safetensors file"),
    "a header of 200 MB": (claim, "is not a readable safetensors file"),
    "a pickle under another name": (lambda folder: shard(folder).write_bytes(pickle.dumps(Trap(folder))), "is not a readable"),
    "whole numbers": (lambda folder: replace(folder, Tensor.int), "numbers of the format I32"),
    "not a number": (lambda folder: replace(folder, lambda x: x * torch.nan), "not finite"),
    "another shape": (lambda folder: replace(folder, lambda x: x[..., 1:].contiguous()), "does not fit its config.json"),
    "outside": (index_of(lambda index: index["weight_map"].update({"model.norm.weight": "../x.safetensors"})),
                "'../x.safetensors'"),
    "a shard gone": (lambda folder: shard(folder).unlink(), "is not a readable safetensors file"),
    "a name missing": (index_of(lambda index: index["weight_map"].pop("model.norm.weight")), "lacks 1: model.norm.weight"),
    "a name too many": (index_of(lambda index: index["weight_map"].update(more="model-00001-of-00002.safetensors")),
                        "has what the model does not: 1: more"),
    "a name in the wrong shard": (index_of(lambda index: index["weight_map"].update(dict.fromkeys(
        ["model.norm.weight", "lm_head.weight"], sorted(index["weight_map"].values())[3]))), "which the index says it has"),
    "no index": (index_of(dict.clear), "has no weight_map"),
    "broken JSON": (lambda folder: (folder / "config.json").write_text("{"), "is damaged"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "it should hold an object, not list"),
    "no settings": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "another family": (settings_of(model_type="mamba"), "model_type 'mamba' is unknown"),
    "quantized": (settings_of(quantization_config={"bits": 4}), "quantized"),
    "another scaling": (settings_of(rope_parameters={"rope_type": "dynamic", "factor": 4.0}), "rope scaling 'dynamic'"),
    "another activation": (settings_of(hidden_act="mish"), "hidden_act is \"mish\""),
    "heads that do not fit": (settings_of(num_key_value_heads=3), "n_kv_heads 3 does not divide n_heads 4"),
    "a wrong type": (settings_of(hidden_size="wide"), "config.json: hidden_size is \"wide\": it should be a valid integer"),
    "one layer more": (settings_of(num_hidden_layers=4), "lacks 9: model.layers.3"),
    "one layer less": (settings_of(num_hidden_layers=2), "has what the model does not: 9: model.layers.2"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_in_one_line(damage: str, folder: Path) -> None:
    spoil, message = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "sprung").exists()


def test_a_trap_in_an_old_pickle_does_not_spring(folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    torch.save({"model.norm.weight": torch.ones(16), "trap": Trap(folder)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="is not a file of tensors alone"):
        load_pretrained(folder)
    assert not (folder / "sprung").exists()


def test_neither_folder_nor_name(tmp_path: Path) -> None:
    for wrong in (tmp_path / "nowhere", "../secret", "https://somewhere/model"):
        with pytest.raises(UserError, match="neither a folder nor a name on the hub"):
            load_pretrained(wrong)


# Memory


@pytest.mark.slow
def test_memory_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    "The highest memory of a fresh process, with what it had before it read the weights taken off."
    large = ModelConfig(vocab_size=20_000, max_seq_len=64, d_model=512, n_layers=12, n_heads=8, tie_embeddings=False)
    folder = save_pretrained(tmp_path / "large", Transformer(large))
    small = save_pretrained(tmp_path / "small", Transformer(ModelConfig(n_layers=1)))
    size = sum(file.stat().st_size for file in folder.iterdir())
    program = PEAK_MEMORY + f"""
from geminiq.data.tokenizer import train_tokenizer
from geminiq.generation.generate import generate_text
from geminiq.generation.sampling import Sampling
from geminiq.models.pretrained import load_pretrained
load_pretrained({str(small)!r})   # what every model needs once
before = peak_memory()
model = load_pretrained({str(folder)!r}).model
print(peak_memory() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert size > 200e6
    assert 0.9 * size < int(done.stdout) * 1024 < 1.1 * size


# The hub


class Hub(BaseHTTPRequestHandler):
    "As much of a hub as a download needs."
    folder: Path
    commit = "0123456789abcdef0123456789abcdef01234567"

    def log_message(self, *words: object) -> None:
        "Say nothing."

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = sorted(self.folder.iterdir())
        if "/api/models/some/model/tree/" in path:
            self.answer(json.dumps([{"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0"}
                                    for file in files]))
        elif path.startswith("/api/models/some/model"):
            self.answer(json.dumps({"id": "some/model", "sha": self.commit, "private": False, "gated": False, "tags": [],
                                    "siblings": [{"rfilename": file.name} for file in files]}))
        elif path.startswith("/some/model/resolve/"):
            self.answer((self.folder / path.rpartition("/")[2]).read_bytes())
        else:
            self.send_error(404)

    def answer(self, body: str | bytes) -> None:
        body = body.encode() if isinstance(body, str) else body
        self.send_response(200)
        for name, value in (("ETag", f'"{hash(body)}"'), ("X-Repo-Commit", self.commit), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    "The address of a hub that has the model some/model."
    write(FIRST["Llama"], tmp_path / "published")
    Hub.folder = tmp_path / "published"
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_a_name_on_the_hub(hub: str, tmp_path: Path) -> None:
    "Fetched once, then used without a network; the unknown and the unreachable are explained."
    program = """
import sys
from geminiq.data.tokenizer import train_tokenizer
from geminiq.generation.generate import generate_text
from geminiq.generation.sampling import Sampling
from geminiq.models.pretrained import load_pretrained
from geminiq.utils.device import UserError
try: print(load_pretrained(sys.argv[1]).model.num_parameters())
except UserError as error: print(error)
"""

    def call(name: str, **environment: str) -> str:
        surroundings = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"} | environment
        done = subprocess.run([sys.executable, "-c", program, name], capture_output=True, text=True, env=surroundings, check=True)
        return done.stdout.strip()

    expected = str(load_pretrained(tmp_path / "published").model.num_parameters())
    assert call("some/model") == expected
    assert call("some/model", HF_HUB_OFFLINE="1") == expected
    for trouble in (call("no/model"), call("other/model", HF_HUB_OFFLINE="1"), call("other/model", HF_ENDPOINT="http://127.0.0.1:9")):
        assert "could not be fetched from the hub" in trouble and "\n" not in trouble


def test_settings_without_a_model() -> None:
    "What the configuration says of itself is what is written."
    settings = _to_hf(ModelConfig(attention_type="sliding_window", sliding_window=7), "mistral")
    assert (settings["model_type"], settings["sliding_window"], settings["hidden_size"]) == ("mistral", 7, 192)


# With its tokenizer, as a whole


def test_others_write_the_same_text(tmp_path: Path) -> None:
    "A model trained here, with its tokenizer, answers a prompt in transformers as it does here; and read back, too."
    sentence = "The cat slept because it purred, and the dog did not."
    tokenizer = train_tokenizer([sentence] * 9, vocab_size=300)
    model = Transformer(ModelConfig(vocab_size=300, max_seq_len=64, d_model=24, n_layers=2, n_heads=3))
    tokens = torch.tensor([[tokenizer.eos_id, *tokenizer.encode(sentence), tokenizer.eos_id]])
    optimizer = configure_optimizer(model, 1e-2)
    for _ in range(60):
        train_step(build_objective(model), optimizer, [(tokens[:, :-1], tokens[:, 1:])], 1.0)
    ours = generate_text(model, tokenizer, "The cat", sampling=Sampling(temperature=0), max_tokens=40)
    assert "The cat" + ours == sentence
    folder = save_pretrained(tmp_path / "ours", model, tokenizer=tokenizer)
    back = load_pretrained(folder)
    assert generate_text(back.model, back.tokenizer, "The cat", sampling=Sampling(temperature=0), max_tokens=40) == ours
    reader, theirs = (kind.from_pretrained(folder) for kind in (transformers.AutoTokenizer, transformers.AutoModelForCausalLM))
    written = theirs.generate(**reader("The cat", return_tensors="pt"), max_new_tokens=40, do_sample=False)
    assert reader.decode(written[0], skip_special_tokens=True) == sentence
