"""Published architectures: what `transformers` writes is read, and gives the same numbers, texts and gradients.

Each reference is built in memory from its configuration, with random weights, and written to a folder of the test.
"""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from geminiq.generation.beam_search import beam_search
from geminiq.generation.cache import KVCache
from geminiq.generation.generate import generate
from geminiq.models.pretrained import FAMILIES, Family, load_pretrained
from geminiq.training.losses import build_objective, cross_entropy_loss
from geminiq.training.optimizer import configure_optimizer
from geminiq.training.trainer import train_step
from geminiq.utils.device import UserError, make_generator
from helpers import (
    ALONE,
    GPT2,
    GREEDY,
    LENGTH,
    ODD,
    SHAPE,
    VOCAB,
    Case,
    Pair,
    gradients_of,
    published,
    reference,
    relative,
    texts,
)

pytestmark = pytest.mark.usefixtures("exact")

EACH_ITS_OWN = {"num_key_value_heads": 4}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 24, "rope_theta": 500.0}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12, "rope_theta": 500.0}
OWN_YARN = YARN | {"beta_fast": 4.0, "beta_slow": 0.5, "attention_factor": 1.3}
WINDOW = {"sliding_window": 5}
CAPS = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 7}
GEMMA = {"head_dim": 8, **WINDOW}
LOCAL_AND_GLOBAL = {"full_attention": LINEAR, "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}


CASES = [
    Case("GPT2", "tied", GPT2), Case("GPT2", "untied", {**GPT2, "tie_word_embeddings": False, "n_inner": 20}),
    Case("GPT2", "relu and 2 heads", {**GPT2, "n_head": 2, "activation_function": "relu", "layer_norm_epsilon": 1e-3}),
    Case("Llama", "1: a key for every head", SHAPE | EACH_ITS_OWN),
    Case("Llama", "2: grouped, tied", {**SHAPE, "tie_word_embeddings": True}),
    Case("Llama", "3: scaled", {**SHAPE, "rope_parameters": LLAMA3}),
    Case("Llama", "scaled evenly", {**SHAPE, "rope_parameters": LINEAR}),
    Case("Llama", "scaled by YaRN", {**SHAPE, "rope_parameters": YARN}),
    Case("Llama", "biases, odd", SHAPE | ODD | {"attention_bias": True, "mlp_bias": True}),
    Case("Llama", "biases in attention alone", SHAPE | ALONE | {"attention_bias": True}),
    Case("Mistral", "window", SHAPE | WINDOW), Case("Mistral", "no window", SHAPE | {"sliding_window": None}),
    Case("Mistral", "window of two, odd", SHAPE | ODD | {"sliding_window": 2}),
    Case("Mistral", "wide heads, one key", SHAPE | ALONE | WINDOW | {"head_dim": 10}),
    Case("Mixtral", "two of four", SHAPE | {"num_local_experts": 4}),
    Case("Mixtral", "three of five, window, tied",
         SHAPE | WINDOW | {"num_local_experts": 5, "num_experts_per_tok": 3, "tie_word_embeddings": True}),
    Case("Mixtral", "odd", SHAPE | ODD | {"num_local_experts": 3}),
    Case("Qwen2", "biases on queries, keys and values", SHAPE),
    Case("Qwen2", "windows in later layers, one key, tied",
         SHAPE | ALONE | WINDOW | {"use_sliding_window": True, "max_window_layers": 1, "tie_word_embeddings": True}),
    Case("Qwen2", "odd, YaRN", SHAPE | {
        "hidden_size": 18, "num_attention_heads": 3, "num_key_value_heads": 3, "rope_parameters": YARN}),
    Case("Qwen3", "wide heads", SHAPE | {"head_dim": 10}),
    Case("Qwen3", "windows in later layers, tied",
         SHAPE | WINDOW | {"head_dim": 8, "use_sliding_window": True, "max_window_layers": 1, "tie_word_embeddings": True}),
    Case("Qwen3", "biases, odd, scaled", SHAPE | ODD | {"attention_bias": True, "rope_parameters": LLAMA3}),
    Case("Qwen3", "YaRN of its own", SHAPE | {"head_dim": 10, "rope_parameters": OWN_YARN}),
    Case("Qwen3Moe", "shares of all", SHAPE | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
                                               "head_dim": 8}),
    Case("Qwen3Moe", "shares of the chosen, a plain layer",
         SHAPE | {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 8, "norm_topk_prob": True,
                  "mlp_only_layers": [1]}),
    Case("Qwen3Moe", "every other layer, one key",
         SHAPE | ALONE | {"num_experts": 3, "num_experts_per_tok": 1, "moe_intermediate_size": 12, "decoder_sparse_step": 2,
                          "num_hidden_layers": 4}),
    Case("Mixtral", "one of four", SHAPE | {"num_local_experts": 4, "num_experts_per_tok": 1}),
    Case("Qwen3Moe", "one alone, its share is one",
         SHAPE | {"num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 8, "norm_topk_prob": True}),
    Case("Gemma2", "capped", SHAPE | GEMMA | CAPS), Case("Gemma2", "not capped", SHAPE | GEMMA | {
        "attn_logit_softcapping": None, "final_logit_softcapping": None, "query_pre_attn_scalar": 8}),
    Case("Gemma2", "odd, biases, untied", SHAPE | GEMMA | CAPS | ODD | {"attention_bias": True, "tie_word_embeddings": False}),
    Case("Gemma3", "near and far", SHAPE | GEMMA | {"num_hidden_layers": 7, "rope_parameters": LOCAL_AND_GLOBAL}),
    Case("Gemma3", "one key, own pattern", SHAPE | GEMMA | ALONE | {
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}),
    Case("Gemma3", "odd, untied, capped", SHAPE | GEMMA | ODD | {
        "tie_word_embeddings": False, "final_logit_softcapping": 2.0, "num_hidden_layers": 6}),
]


FIRST = {case.family: case for case in reversed(CASES)}   # one of each family
QUICK_FIRST = [case if case is FIRST[case.family] else pytest.param(case, marks=pytest.mark.slow) for case in CASES]


@pytest.fixture(params=QUICK_FIRST, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    "Each of them; the first of each family is quick."
    return request.param


@pytest.fixture
def pair(case: Case, tmp_path: Path) -> Pair:
    "The reference, and what we make of its folder."
    return published(reference(case), tmp_path / "published")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_logits(pair: Pair) -> None:
    tokens, left = texts()
    for mask in (torch.ones_like(left), left, left.flip(1)):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.no_grad():
            theirs = pair.theirs(tokens, attention_mask=mask.long(), position_ids=positions).logits
            ours = pair.ours(tokens, mask)
        assert relative(ours[mask], theirs[mask]) < 1e-9


def test_cached_steps(pair: Pair) -> None:
    tokens, mask = texts()
    positions, whole = (mask.cumsum(-1) - 1).clamp(min=0), None
    cache, ours, start = KVCache(pair.ours), [], 0
    with torch.no_grad():
        whole = pair.theirs(tokens, attention_mask=mask.long(), position_ids=positions).logits
        for size in (9, 1, 1, 6, 3):
            ours.append(pair.ours(tokens[:, start:start + size], mask[:, :start + size], cache))
            start += size
    assert relative(torch.cat(ours, dim=1)[mask], whole[mask]) < 1e-9


def test_gradients(pair: Pair, tmp_path: Path) -> None:
    tokens, mask = texts()
    targets = tokens.roll(-1, 1).masked_fill(~mask, -100).index_fill(1, torch.tensor([LENGTH - 1]), -100)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = pair.theirs(tokens, attention_mask=mask.long(), position_ids=positions).logits
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    cross_entropy_loss(pair.ours(tokens, mask), targets).backward()
    theirs = gradients_of(pair.theirs, tmp_path / "gradients")
    largest = max(p.abs().max() for p in theirs.values())
    for name, p in pair.ours.named_parameters():
        assert p.grad is not None, name
        assert (p.grad - theirs[name]).abs().max() <= 1e-9 * largest, name


@pytest.mark.parametrize("parts", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_eight_training_steps(pair: Pair, parts: int) -> None:
    "The same losses and lengths of gradients, whether a batch comes whole or in parts, the last of which is short."
    pair.ours.train()
    objective, optimizer = build_objective(pair.ours), configure_optimizer(pair.ours, 3e-3)
    groups = [{"params": [p for p in pair.theirs.parameters() if (p.ndim >= 2) == decays], "weight_decay": 0.1 * decays}
              for decays in (True, False)]
    peer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))
    generator = make_generator(2)
    for _ in range(8):
        windows = torch.randint(VOCAB, (5, LENGTH + 1), generator=generator)
        inputs, targets = windows[:, :-1], windows[:, 1:].clone()
        targets[0, :7] = -100
        found = train_step(objective, optimizer, list(zip(inputs.chunk(parts), targets.chunk(parts), strict=True)), 1.0)
        expected = F.cross_entropy(pair.theirs(inputs).logits.flatten(0, 1), targets.flatten())
        expected.backward()
        length = torch.nn.utils.clip_grad_norm_(pair.theirs.parameters(), 1.0)
        peer.step(), peer.zero_grad()
        assert found.loss == pytest.approx(expected.item(), rel=1e-6)
        assert found.grad_norm == pytest.approx(length.item(), rel=1e-6)


def test_greedy_and_beam_texts(pair: Pair) -> None:
    tokens, mask = (part[:, 6:] for part in texts())
    how = {"attention_mask": mask.long(), "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    theirs = pair.theirs.generate(tokens, **how)[:, tokens.shape[1]:]
    assert torch.equal(generate(pair.ours, tokens, 12, attention_mask=mask, sampling=GREEDY), theirs)
    theirs = pair.theirs.generate(tokens, num_beams=3, **how)[:, tokens.shape[1]:]
    found = beam_search(pair.ours, tokens, 12, num_beams=3, attention_mask=mask)
    assert [text.tokens for text, in found] == theirs.tolist()


def test_float32(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "As it is used, with nothing lifted."
    monkeypatch.undo()
    theirs = reference(case).float()
    theirs.save_pretrained(tmp_path / "published")
    ours = load_pretrained(tmp_path / "published").model.eval()
    tokens, _ = texts()
    with torch.no_grad():
        assert relative(ours(tokens), theirs(tokens).logits) < 1e-5


@pytest.mark.parametrize("case", FIRST.values(), ids=str)
def test_a_family_names_our_weights_as_its_files_do(pair: Pair, tmp_path: Path) -> None:
    family = FAMILIES[pair.theirs.config.model_type]
    assert isinstance(family, Family) and family.is_text
    theirs = load_file(tmp_path / "published" / "model.safetensors").keys()
    ours = {re.sub(r"\[\d\]", "", family.published_name(name)) for name, _ in pair.ours.named_parameters()}
    assert ours == theirs


LONGER = {"linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
          "yarn": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 12}}


@pytest.mark.parametrize("method", LONGER)
def test_lengthened_is_what_transformers_makes_of_the_same_scaling(method: str, tmp_path: Path) -> None:
    "Weights published for 12 positions; both read and write texts of 48."
    short = Case("Llama", "short", SHAPE | {"max_position_embeddings": 12})
    theirs = reference(Case("Llama", "long", SHAPE | {"rope_parameters": LONGER[method]}))
    reference(short).save_pretrained(tmp_path / "published")
    ours = load_pretrained(tmp_path / "published", max_seq_len=48, rope_scaling=method).model
    assert ours.config.max_seq_len == 48 and ours.config.rope_scaling.factor == 4
    tokens, mask = texts()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = theirs(tokens, attention_mask=mask.long(), position_ids=positions).logits
    assert relative(ours(tokens, mask)[mask], logits[mask]) < 1e-9
    written = theirs.generate(tokens, attention_mask=mask.long(), do_sample=False, max_new_tokens=28)[:, LENGTH:]
    for use_cache in (True, False):
        how = {"sampling": GREEDY, "attention_mask": mask, "use_cache": use_cache}
        assert torch.equal(generate(ours, tokens, 28, **how), written)


def test_lengthening_is_for_models_that_write(tmp_path: Path) -> None:
    reference(Case("Llama", "short", SHAPE)).save_pretrained(tmp_path / "published")
    with pytest.raises(UserError, match="rope_scaling 'yarn' needs a max_seq_len"):
        load_pretrained(tmp_path / "published", rope_scaling="yarn")
    reference(Case("GPT2", "tied", GPT2)).save_pretrained(tmp_path / "learned")
    with pytest.raises(UserError, match="pos_encoding learned has learned 48 positions and knows none beyond"):
        load_pretrained(tmp_path / "learned", max_seq_len=96)
