"""Low-rank adaptation: the same numbers as PEFT's, in its files, its training and its merged weights.

Each base is built in memory by `transformers` with random weights in double precision, and wrapped by PEFT. `exact` lifts the
casts to float32 in the bases, as in test_pretrained.py; PEFT itself computes in the dtype of A and B.
"""

import json
import struct
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from geminiq.generation.generate import generate
from geminiq.generation.sampling import Sampling
from geminiq.models.attention import CrossAttention
from geminiq.models.pretrained import FAMILIES, load_pretrained
from geminiq.models.transformer import Transformer
from geminiq.training import lora
from geminiq.training.lora import add_lora, load_adapter, lora_layers, lora_parameters, merge_lora, save_adapter
from geminiq.training.losses import cross_entropy_loss
from geminiq.training.optimizer import configure_optimizer
from geminiq.training.trainer import Trainer, make_trainer, resume_trainer
from geminiq.utils.checkpointing import load_checkpoint, save_checkpoint
from geminiq.utils.config import load_config, make_config
from geminiq.utils.device import UserError, make_generator
from helpers import GPT2, SHAPE, VOCAB, Case, published, reference, relative, texts, tiny_model

pytestmark = [
    pytest.mark.usefixtures("exact"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),   # PEFT asks transformers for it
    pytest.mark.filterwarnings(r"ignore:The following \w+_pattern keys did not match"),   # PEFT's own, for fused experts
]

ATTENTION, FEED_FORWARD = ("query", "key", "value", "output"), ("feed_forward.gate", "up", "down")
LLAMA = Case("Llama", "grouped", SHAPE)
MIXTRAL = Case("Mixtral", "two of four", SHAPE | {"num_local_experts": 4})
QWEN3 = Case("Qwen3", "wide heads", SHAPE | {"head_dim": 10})
QWEN3_MOE = Case("Qwen3Moe", "two of four", SHAPE | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8})
OLDEST = Case("GPT2", "tied", GPT2)
FAMILY = {"Llama": "llama", "Mixtral": "mixtral", "Qwen3": "qwen3", "Qwen3Moe": "qwen3_moe", "GPT2": "gpt2"}


@pytest.fixture
def base(tmp_path: Path) -> Callable[[Case], tuple[nn.Module, Transformer]]:
    "Makes the same weights twice: theirs, and ours."
    def make(case: Case) -> tuple[nn.Module, Transformer]:
        return published(reference(case), tmp_path / "published")
    return make


def fill(parameters: list[nn.Parameter]) -> None:
    "Numbers of a size at which each counts."
    generator = make_generator(7)
    with torch.no_grad():
        for p in parameters:
            p.copy_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))


def theirs_of(model: PeftModel) -> list[nn.Parameter]:
    "PEFT's A and B."
    return [p for name, p in model.named_parameters() if "lora_" in name]


def compare(ours: Transformer, theirs: nn.Module) -> None:
    "The predictions are the same."
    tokens, _ = texts()
    with torch.no_grad():
        assert relative(ours(tokens), theirs(tokens).logits) < 1e-9


WRITTEN = [
    (LLAMA, {"target_modules": ("query", "value")}), (LLAMA, {"target_modules": ATTENTION + FEED_FORWARD, "rslora": True}),
    (LLAMA, {"target_modules": ("lm_head", "down")}), (QWEN3, {"target_modules": ATTENTION + FEED_FORWARD}),
    (MIXTRAL, {"target_modules": ATTENTION}), (MIXTRAL, {"target_modules": ATTENTION + FEED_FORWARD}),
    (MIXTRAL, {"target_modules": ("down", "router.gate")}),
    (QWEN3_MOE, {"target_modules": FEED_FORWARD}), (OLDEST, {"target_modules": ("output", "up", "down")}),
    (OLDEST, {"target_modules": ("down",)}),
]


def label(part: Case | dict) -> str:
    "What a test is called."
    return part.family if isinstance(part, Case) else str([*part.values()])


@pytest.mark.parametrize(("case", "how"), WRITTEN, ids=label)
def test_peft_reads_what_we_write(case: Case, how: dict, base: Callable, tmp_path: Path) -> None:
    "And merges it to the same model."
    theirs, ours = base(case)
    tokens, _ = texts()
    before = ours(tokens)
    add_lora(ours, rank=3, alpha=5, **how)
    assert torch.equal(ours(tokens), before)
    assert {name[-7:] for name, p in ours.named_parameters() if p.requires_grad} == {".lora_A", ".lora_B"}
    fill(lora_parameters(ours))
    folder = save_adapter(tmp_path / "adapter", ours, FAMILY[case.family])
    adapted = PeftModel.from_pretrained(theirs, folder).eval()
    assert relative(ours(tokens), before) > 0.1
    compare(ours, adapted)
    merge_lora(ours)
    assert all(p.requires_grad for p in ours.parameters())
    compare(ours, adapted.merge_and_unload())


ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
READ = [
    (LLAMA, {"target_modules": ["q_proj", "v_proj"], "r": 4, "lora_alpha": 6}),
    (LLAMA, {"target_modules": ALL, "r": 4, "use_rslora": True, "lora_dropout": 0.2}),
    (LLAMA, {"target_modules": ALL, "r": 4, "rank_pattern": {"q_proj": 2, r"layers\.1\..*\.v_proj": 5},
             "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 32, "_proj": 100, "down_proj": 3}}),
    (LLAMA, {"target_modules": r".*\.[02]\..*(q|up)_proj"}), (LLAMA, {"target_modules": "all-linear"}),
    (LLAMA, {"target_modules": ["k_proj"], "layers_to_transform": [1]}),
    (LLAMA, {"target_modules": ["lm_head", "1.mlp.gate_proj"]}),
    (LLAMA, {"target_modules": ["up_proj"], "exclude_modules": ["model.layers.0.mlp.up_proj"], "init_lora_weights": "gaussian"}),
    (QWEN3, {"target_modules": ALL, "r": 2}), (MIXTRAL, {"target_modules": ["q_proj", "o_proj"]}),
    (OLDEST, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
]


@pytest.mark.parametrize(("case", "how"), READ, ids=label)
def test_we_read_what_peft_writes(case: Case, how: dict, base: Callable, tmp_path: Path) -> None:
    "And write it again, unless it is fused."
    theirs, ours = base(case)
    adapted = get_peft_model(theirs, LoraConfig(**how)).eval()
    fill(theirs_of(adapted))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    load_adapter(tmp_path / "adapter", ours, FAMILY[case.family])
    assert len(lora_parameters(ours)) >= len(theirs_of(adapted))   # more where theirs are fused
    assert not any(part.training for part in ours.modules())
    compare(ours, adapted)
    if case is OLDEST:
        with pytest.raises(UserError, match="one A for query, key and value"):
            save_adapter(tmp_path / "again", ours, "gpt2")
        return
    save_adapter(tmp_path / "again", ours, FAMILY[case.family])
    once, again = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("adapter", "again"))
    assert once.keys() == again.keys() and all(torch.equal(once[name], again[name]) for name in once)
    compare(ours, PeftModel.from_pretrained(reference(case), tmp_path / "again").eval())


def test_gates_of_experts_without_their_way_down(base: Callable, tmp_path: Path) -> None:
    "The experts of transformers 5 are one tensor each way, and PEFT 0.21 then looks for them in the wrong place; it says so."
    theirs, ours = base(MIXTRAL)
    add_lora(ours, rank=2, alpha=4, target_modules=("gate", "up"))
    folder = save_adapter(tmp_path / "adapter", ours, "mixtral")
    with pytest.warns(UserWarning, match="Found missing adapter keys"):
        PeftModel.from_pretrained(theirs, folder)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(("case", "targets"), [(LLAMA, ALL), (QWEN3, ALL), (MIXTRAL, ["q_proj", "k_proj", "v_proj", "o_proj"])],
                         ids=["Llama", "Qwen3", "Mixtral"])
def test_training(case: Case, targets: list[str], dropout: float, base: Callable, tmp_path: Path) -> None:
    "Eight steps: the same losses, the same A and B. Dropout draws from PyTorch's own source, in the same order."
    theirs, ours = base(case)
    adapted = get_peft_model(theirs, LoraConfig(target_modules=targets, r=3, lora_alpha=6, lora_dropout=dropout))
    adapted.save_pretrained(tmp_path / "adapter")
    load_adapter(tmp_path / "adapter", ours, FAMILY[case.family])
    frozen = {name: p.clone() for name, p in ours.named_parameters() if not p.requires_grad}
    before = [p.clone() for p in lora_parameters(ours)]
    ours.train(), adapted.train()
    own = configure_optimizer(ours, 1e-2, weight_decay=0.1)
    other = torch.optim.AdamW(theirs_of(adapted), lr=1e-2, weight_decay=0.1, betas=(0.9, 0.95))
    generator = make_generator(3)
    for step in range(8):
        tokens = torch.randint(VOCAB, (4, 13), generator=generator)
        with torch.random.fork_rng([]):
            torch.manual_seed(step)
            loss = cross_entropy_loss(ours(tokens[:, :-1]), tokens[:, 1:])
            torch.manual_seed(step)
            expected = F.cross_entropy(adapted(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())
        assert abs(loss - expected).item() < 1e-9
        for one, optimizer in ((loss, own), (expected, other)):
            one.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(p, frozen[name]) for name, p in ours.named_parameters() if name in frozen)
    assert all((p - old).abs().max() > 1e-3 for p, old in zip(lora_parameters(ours), before, strict=True))
    trained = dict(adapted.named_parameters())
    for name, their in lora._adapter_names(lora_layers(ours), FAMILY[case.family]).items():
        for leaf in "AB":
            mine = ours.get_parameter(f"{name}.lora_{leaf}")
            assert (mine - trained[f"base_model.model.{their}.lora_{leaf}.default.weight"]).abs().max() < 1e-9, name


def test_sixteen_bits(base: Callable, tmp_path: Path) -> None:
    "Beside weights of 16 bits both learn in 32."
    theirs, ours = base(LLAMA)
    theirs, ours = theirs.bfloat16(), ours.bfloat16()
    adapted = get_peft_model(theirs, LoraConfig(target_modules=ALL, r=3)).eval()
    fill(theirs_of(adapted))
    adapted.save_pretrained(tmp_path / "adapter")
    load_adapter(tmp_path / "adapter", ours)
    assert {p.dtype for p in lora_parameters(ours)} == {p.dtype for p in theirs_of(adapted)} == {torch.float32}
    with torch.no_grad():
        for name, part in lora_layers(ours).items():
            their = adapted.get_submodule(f"base_model.model.{lora._adapter_names([name], 'llama')[name]}")
            x = torch.randn(5, part.in_features, generator=make_generator(1)).bfloat16()
            assert torch.equal(part(x), their(x)), name
    merge_lora(ours)
    merged = {p.dtype for p in ours.parameters()}
    assert merged == {torch.bfloat16}


def test_generation_with_and_without_folding(base: Callable) -> None:
    _, ours = base(QWEN3)
    add_lora(ours, rank=2, alpha=4, target_modules=ATTENTION)
    tokens = texts()[0][:, :5]
    before = generate(ours, tokens, 10, sampling=Sampling(temperature=0))
    fill(lora_parameters(ours))
    adapted = generate(ours, tokens, 10, sampling=Sampling(temperature=0))
    assert not torch.equal(adapted, before)
    merge_lora(ours)
    assert torch.equal(generate(ours, tokens, 10, sampling=Sampling(temperature=0)), adapted)


def test_attention_to_something_else() -> None:
    "It asks its layers how wide their inputs are."
    attention = CrossAttention(8, 2, d_context=6)
    x, context = (torch.randn(1, 3, width, generator=make_generator(0)) for width in (8, 6))
    before = attention(x, context)
    add_lora(attention, rank=1, alpha=1, target_modules="key")
    assert torch.equal(attention(x, context), before) and [*lora_layers(attention)] == ["key"]


def test_draws_are_the_generators_alone(base: Callable) -> None:
    _, ours = base(LLAMA)
    state, drawn = torch.random.get_rng_state(), []
    for seed in (0, 0, 1):
        add_lora(ours, rank=2, alpha=4, generator=make_generator(seed))
        drawn.append([p.clone() for p in lora_parameters(ours)])
        merge_lora(ours)
    first, same, other = ([p for p in parameters if p.abs().max() > 0] for parameters in drawn)
    assert len(first) == 2 * ours.config.n_layers   # the A of queries and values; each B is zero
    assert all(map(torch.equal, first, same)) and not any(map(torch.equal, first, other))
    assert len({p.sum().item() for p in first}) == len(first)   # each layer has its own
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    "A folder that is whole."
    model = tiny_model()
    add_lora(model, rank=2, alpha=4)
    fill(lora_parameters(model))
    return save_adapter(tmp_path / "adapter", model)


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def edit(adapter: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    "Change the tensors of an adapter."
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")


def configure(adapter: Path, **more: object) -> None:
    "Change the configuration of an adapter."
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


DAMAGES = {
    "lacks 1": lambda a: edit(a, lambda t: t.pop(FIRST)),
    "lacks 2": lambda a: edit(a, lambda t: (t.pop(FIRST), t.pop(FIRST.replace("_A", "_B")))),
    "lacks 4": lambda a: configure(a, target_modules=["q_proj", "v_proj", "k_proj"]),
    "not finite": lambda a: edit(a, lambda t: t[FIRST].fill_(torch.nan)),
    "has what the model does not": lambda a: edit(a, lambda t: t.update(more=torch.ones(1))),
    "must be": lambda a: edit(a, lambda t: t.update({FIRST: torch.ones(3, 16)})),
    r"must be \(3, 16\)": lambda a: configure(a, rank_pattern={"q_proj": 3}),
    "weights are": lambda a: edit(a, lambda t: t.update({FIRST: torch.ones(2, 16, dtype=torch.int32)})),
    "holds no changes": lambda a: (edit(a, dict.clear), configure(a, target_modules="x")),
    "safetensors": lambda a: (a / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 10**9)),
    "has neither adapter_model.safetensors nor": lambda a: (a / "adapter_model.safetensors").unlink(),
    "is damaged": lambda a: (a / "adapter_config.json").write_text("{"),
    "peft_type None": lambda a: (a / "adapter_config.json").write_text("{}"),
    "rank 'x'": lambda a: configure(a, r="x"), "rank True": lambda a: configure(a, r=True),
    "alpha nan": lambda a: configure(a, lora_alpha=float("nan")), "dropout 1.5": lambda a: configure(a, lora_dropout=1.5),
    "alpha None": lambda a: configure(a, alpha_pattern={"v_proj": None}),
    "use_dora True": lambda a: configure(a, use_dora=True), "bias 'lora_only'": lambda a: configure(a, bias="lora_only"),
    "modules_to_save": lambda a: configure(a, modules_to_save=["lm_head"]),
    "olora": lambda a: configure(a, init_lora_weights="olora"),
    "lora_bias True": lambda a: configure(a, lora_bias=True), "use_rslora 'no'": lambda a: configure(a, use_rslora="no"),
    "target_parameters": lambda a: configure(a, target_parameters=["w"]),
    "layer_replication": lambda a: configure(a, layer_replication=[[0, 1]]),
    "next_idea": lambda a: configure(a, next_idea={"k": 1}),
    "rank_pattern": lambda a: configure(a, rank_pattern={"(": 1}), "alpha_pattern": lambda a: configure(a, alpha_pattern=[1]),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_files(message: str, adapter: Path) -> None:
    "One line, and the model is left as it was."
    model = tiny_model()
    DAMAGES[message](adapter)
    with pytest.raises(UserError, match=message) as caught:
        load_adapter(adapter, model)
    assert "\n" not in str(caught.value)
    assert not lora_layers(model) and all(p.requires_grad for p in model.parameters())


PATTERNS = {"q_proj": True, r"model\.layers\.\d+\.self_attn\.q_proj": True, r".*\.(0|1)\..*q_proj": True,
            "^model.layers.[0-9].*proj": True,
            r"layers\.1\.self_attn\.(?:q|v)_proj": True, "(.*)*(.*)*(.*)*x": False, "(a|a)" * 30: False, ".*.*.*.*x": False,
            "(a+)+b": False, r"(.)\1": False, "(?=a)": False, "x" * 10**5: True, "(" * 10**5: False, "a{9}{9}": False,
            "(((a)))": False}


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern[:20])
def test_expressions_end_soon(pattern: str, adapter: Path) -> None:
    "Those that PEFT's users write are matched as PEFT matches them; those that could go on for ever are refused."
    configure(adapter, alpha_pattern={pattern: 9})
    model, start = tiny_model(), time.process_time()
    if PATTERNS[pattern]:
        load_adapter(adapter, model)
        for name, layer in lora_layers(model).items():
            their = FAMILIES["llama"].published_name(name)
            assert layer.alpha == (9 if get_pattern_key([pattern], their) == pattern else 4)
    else:
        with pytest.raises(UserError, match=r"alpha_pattern (has expressions that could|is not a table of simple)"):
            load_adapter(adapter, model)
    assert time.process_time() - start < 2


def test_an_adapter_as_peft_wrote_it_before(adapter: Path) -> None:
    "A pickle of tensors."
    expected, model = tiny_model(), tiny_model()
    load_adapter(adapter, expected)
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    load_adapter(adapter, model)
    assert all(map(torch.equal, model.parameters(), expected.parameters()))
    with pytest.raises(UserError, match="is an adapter for a model, not a model"):
        load_pretrained(adapter)


def test_the_undamaged_is_read(adapter: Path) -> None:
    model = tiny_model()
    load_adapter(adapter, model)
    assert len(lora_layers(model)) == 4
    with pytest.raises(UserError, match="exists already"):
        save_adapter(adapter, model)


def test_a_tied_head_is_none_of_them() -> None:
    "A change of the head alone could not be folded into a weight that is the embedding's too."
    model = tiny_model()
    assert model.config.tie_embeddings and "lm_head" not in lora._linear_maps(model)
    with pytest.raises(UserError, match="target_modules has lm_head: the linear maps of this model are down, gate, key, output, "
                                         "query, up"):
        add_lora(model, rank=2, alpha=4, target_modules=("query", "lm_head"))


def test_layers_without_a_name(adapter: Path) -> None:
    "A family may lack what a model has: experts that all tokens visit, for one."
    model = tiny_model()
    add_lora(model, rank=2, alpha=4, target_modules="gate")
    with pytest.raises(UserError, match=r"the family gpt2 has no 2: blocks.0.feed_forward.gate, blocks.1"):
        save_adapter(adapter.with_name("other"), model, "gpt2")


def test_a_head_with_its_base(base: Callable, tmp_path: Path) -> None:
    "Left to itself, PEFT writes the whole head beside its A and B; that is no adapter any more."
    theirs, ours = base(LLAMA)
    adapted = get_peft_model(theirs, LoraConfig(target_modules=["lm_head"]))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    with pytest.raises(UserError, match=r"has what the model does not: 1: base_model.model.lm_head.base_layer.weight"):
        load_adapter(tmp_path / "adapter", ours)


def test_writing_is_all_or_nothing(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    load_adapter(adapter, model)
    def full(*args: object, **more: object) -> None:
        raise OSError("no space left")
    monkeypatch.setattr(lora, "write_file", full)   # the second file
    with pytest.raises(UserError, match="no space"):
        save_adapter(adapter.with_name("new"), model)
    assert [path.name for path in adapter.parent.iterdir()] == ["adapter"]


def test_trainer(tmp_path: Path) -> None:
    "It trains A and B alone, and goes on as if it had never stopped, if it is told what was changed in the configured model."
    text = tmp_path / "words.txt"
    threes = product("acegik", "bdfhj", "lmnop")
    text.write_text("\n\n".join(f"the {a} sat on the {b} and the {b} sat on the {c}" for a, b, c in threes))
    sizes = dict(vocab_size=300, max_seq_len=16, d_model=16, n_layers=2, n_heads=2)
    training = {"max_steps": 4, "batch_size": 2, "warmup_steps": 1, "schedule": "constant", "use_amp": False, "device": "cpu"}
    config = make_config({"model": sizes, "training": training, "data": {"train_path": str(text), "val_fraction": 0.2}})

    def prepare(model: Transformer) -> None:
        add_lora(model, rank=2, alpha=4)

    def start(run: str, steps: int) -> Trainer:
        model = Transformer(config.model, make_generator(1))
        prepare(model)
        settings = config.training.model_copy(update={"max_steps": steps})
        return make_trainer(config.model_copy(update={"training": settings}), tmp_path / run, model=model, progress=False)

    whole = start("whole", 4)
    frozen = {name: p.clone() for name, p in whole.model.named_parameters() if name[-7:] not in (".lora_A", ".lora_B")}
    history = whole.train()
    assert history[-1]["val_loss"] < history[0]["val_loss"]
    assert all(torch.equal(whole.model.get_parameter(name), p) for name, p in frozen.items())

    start("half", 2).train()
    with pytest.raises(UserError, match="do not fit"):
        resume_trainer(tmp_path / "half")
    longer = load_config(tmp_path / "half" / "step-000002" / "config.yaml", ["training.max_steps=4"])
    resumed = resume_trainer(tmp_path / "half", longer, progress=False, prepare=prepare)
    assert [name for name, p in resumed.model.named_parameters() if p.requires_grad] == [
        name for name, _ in whole.model.named_parameters() if name[-7:] in (".lora_A", ".lora_B")]
    resumed.train()
    assert all(torch.equal(p, q) for p, q in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))

    tokens, model = torch.arange(10)[None], whole.model.eval()
    merge_lora(model)
    save_checkpoint(tmp_path / "folded", model, config, load_checkpoint(tmp_path / "whole", prepare=prepare).tokenizer)
    loaded = load_checkpoint(tmp_path / "folded").model.eval()
    assert torch.equal(loaded(tokens), model(tokens)) and all(p.requires_grad for p in loaded.parameters())
