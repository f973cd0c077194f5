"""geminiq against transformers: the same weights give the same numbers, in float64.

Parts of its LLaMA compute in float32 whatever the dtype of the model: the norm, the rotary angles, the
softmax of eager attention. The fixture `exact` makes them read float64 where they say float32: formulas are
compared, not rounding.
"""

import re
from collections.abc import Callable

import pytest
import torch
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MinPLogitsWarper,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.models.llama import modeling_llama

from geminiq.generation.cache import KVCache
from geminiq.generation.generate import generate, left_pad
from geminiq.generation.sampling import min_p, repetition_penalty, temperature, top_k, top_p
from geminiq.models.embeddings import RotaryEmbedding, apply_rotary_emb
from geminiq.models.transformer import Transformer
from geminiq.training.losses import cross_entropy_loss
from geminiq.training.optimizer import constant_schedule, cosine_schedule, linear_schedule
from geminiq.utils.config import ModelConfig
from helpers import GREEDY, agree, scatter_weights

TOLERANCE = 1e-11   # relative to the largest number
VOCAB, CONTEXT, D_MODEL, D_FF, LAYERS, EPS = 61, 24, 24, 40, 3, 1e-3
SEED = 0


class Pair:
    "A reference with random weights, and geminiq with a copy of them."

    def __init__(self, reference: PreTrainedModel, config: ModelConfig, renamed: Callable[[dict], dict]):
        self.reference, self.renamed = scatter_weights(reference.double().eval()), renamed
        self.model = Transformer(config).double().eval()
        self.model.load_state_dict(renamed(reference.state_dict()))

    def gradients(self, tokens: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        "The gradients of the loss in both, by the names of geminiq."
        cross_entropy_loss(self.model(tokens), targets).backward()
        logits = self.reference(tokens).logits
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        ours = {name: p.grad for name, p in self.model.named_parameters()}
        theirs = self.renamed({name: p.grad for name, p in self.reference.named_parameters()})
        return ours, theirs


def from_gpt2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    "Weights or gradients of GPT-2 by the names of geminiq; its maps are (in, out), Q, K and V in one."
    parts = {"wte": "embedding", "wpe": "position", "h": "blocks", "ln_f": "norm", "lm_head": "lm_head",
             "ln_1": "attention_norm", "ln_2": "feed_forward_norm", "attn.c_proj": "attention.output",
             "mlp.c_fc": "feed_forward.up", "mlp.c_proj": "feed_forward.down"}
    renamed = {}
    for name, value in state.items():
        if re.search(r"\.c_\w+\.weight", name):
            value = value.T
        name = rename(name.removeprefix("transformer."), parts)
        if ".attn.c_attn." in name:
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[name.replace("attn.c_attn", f"attention.{part}")] = piece
        else:
            renamed[name] = value
    return renamed


def from_llama(state: dict[str, Tensor]) -> dict[str, Tensor]:
    "Weights or gradients of LLaMA by the names of geminiq."
    parts = {"embed_tokens": "embedding", "layers": "blocks", "lm_head": "lm_head",
             "input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm",
             "self_attn.q_proj": "attention.query",
             "self_attn.k_proj": "attention.key", "self_attn.v_proj": "attention.value",
             "self_attn.o_proj": "attention.output", "mlp.up_proj": "feed_forward.up",
             "mlp.gate_proj": "feed_forward.gate", "mlp.down_proj": "feed_forward.down"}
    return {rename(name.removeprefix("model."), parts): value for name, value in state.items()}


def rename(name: str, parts: dict[str, str]) -> str:
    "Replace whole parts of a dotted name."
    for old, new in parts.items():
        name = re.sub(rf"(?<![^.]){re.escape(old)}(?![^.])", new, name)
    return name


def gpt2(n_heads: int = 4, tied: bool = True, attention: str = "sdpa") -> Pair:
    "GPT-2 twice, with its own approximation of GELU."
    reference = GPT2Config(vocab_size=VOCAB, n_positions=CONTEXT, n_embd=D_MODEL, n_layer=LAYERS,
                           n_head=n_heads, n_inner=D_FF, activation_function="gelu_new", layer_norm_epsilon=EPS,
                           tie_word_embeddings=tied, bos_token_id=None, eos_token_id=None,
                           attn_implementation=attention)
    config = ModelConfig(vocab_size=VOCAB, max_seq_len=CONTEXT, d_model=D_MODEL, n_layers=LAYERS,
                         n_heads=n_heads, d_ff=D_FF, norm_type="layernorm", norm_eps=EPS, ffn_type="standard",
                         activation="gelu_tanh", pos_encoding="learned", bias=True, tie_embeddings=tied)
    return Pair(GPT2LMHeadModel(reference), config, from_gpt2)


def llama(n_heads: int = 4, n_kv_heads: int = 2, head_dim: int | None = None, bias: bool = False,
          tied: bool = False, base: float = 10000.0, attention: str = "sdpa") -> Pair:
    "LLaMA twice."
    reference = LlamaConfig(vocab_size=VOCAB, max_position_embeddings=CONTEXT, hidden_size=D_MODEL,
                            num_hidden_layers=LAYERS, num_attention_heads=n_heads,
                            num_key_value_heads=n_kv_heads, head_dim=head_dim, intermediate_size=D_FF,
                            rms_norm_eps=EPS, attention_bias=bias, mlp_bias=bias,
                            tie_word_embeddings=tied, bos_token_id=None, eos_token_id=None,
                            rope_parameters={"rope_type": "default", "rope_theta": base},
                            attn_implementation=attention)
    config = ModelConfig(vocab_size=VOCAB, max_seq_len=CONTEXT, d_model=D_MODEL, n_layers=LAYERS,
                         n_heads=n_heads, attention_type="gqa", n_kv_heads=n_kv_heads, head_dim=head_dim,
                         d_ff=D_FF, norm_eps=EPS, bias=bias, tie_embeddings=tied, rope_base=base)
    return Pair(LlamaForCausalLM(reference), config, from_llama)


PAIRS = {
    "GPT-2": gpt2,
    "GPT-2 eager": lambda: gpt2(attention="eager"),
    "GPT-2 untied": lambda: gpt2(tied=False),
    "GPT-2 three heads": lambda: gpt2(n_heads=3),
    "GPT-2 one head": lambda: gpt2(n_heads=1),
    "LLaMA": llama,
    "LLaMA eager": lambda: llama(attention="eager"),
    "LLaMA tied": lambda: llama(tied=True),
    "LLaMA all kv heads": lambda: llama(n_kv_heads=4),
    "LLaMA one kv head": lambda: llama(n_kv_heads=1),
    "LLaMA three heads": lambda: llama(n_heads=3, n_kv_heads=3),
    "LLaMA biases": lambda: llama(bias=True),
    "LLaMA wide heads": lambda: llama(head_dim=10),
    "LLaMA three wide heads": lambda: llama(n_heads=3, n_kv_heads=1, head_dim=10),
    "LLaMA other base": lambda: llama(base=500.0),
}


@pytest.fixture(params=PAIRS.values(), ids=PAIRS.keys())
def pair(request: pytest.FixtureRequest, exact: None) -> Pair:
    "Each of the pairs in turn."
    return request.param()


def random_tokens(*shape: int) -> Tensor:
    "Token ids from 1 up: 0 is padding."
    return torch.randint(1, VOCAB, shape, generator=torch.Generator().manual_seed(SEED))


def prompts() -> tuple[Tensor, Tensor]:   # tokens (4, 9), attention_mask (4, 9)
    "Four texts of different lengths, filled up at the left."
    tokens = random_tokens(4, 9).tolist()
    return left_pad([row[:length] for row, length in zip(tokens, (9, 1, 4, 7), strict=True)])


def same_tokens(pair: Pair, tokens: Tensor, attention_mask: Tensor | None, n_new: int) -> None:
    "Both continue the prompts with the same tokens; transformers compares logits in float32."
    seen = torch.ones_like(tokens) if attention_mask is None else attention_mask.long()
    theirs = pair.reference.generate(tokens, attention_mask=seen, do_sample=False, max_new_tokens=n_new,
                                     pad_token_id=0)
    ours = generate(pair.model, tokens, n_new, sampling=GREEDY, attention_mask=attention_mask)
    assert ours.unique().numel() > 3   # else equal tokens would say little
    assert torch.equal(ours, theirs[:, tokens.shape[1]:])


def test_same_number_of_parameters(pair: Pair) -> None:
    assert pair.model.num_parameters() == sum(p.numel() for p in pair.reference.parameters())


@torch.no_grad()
def test_logits(pair: Pair) -> None:
    tokens = random_tokens(3, CONTEXT)
    agree(pair.model(tokens), pair.reference(tokens).logits)


def test_gradients(pair: Pair) -> None:
    tokens = random_tokens(2, 13)
    ours, theirs = pair.gradients(tokens[:, :-1], tokens[:, 1:])
    assert set(ours) <= set(theirs)
    largest = max(gradient.abs().max() for gradient in theirs.values())
    for name, gradient in ours.items():
        assert gradient.abs().max() > 0 or "key.bias" in name, name
        assert (gradient - theirs[name]).abs().max() <= TOLERANCE * largest, name


@torch.no_grad()
def test_logits_with_left_padding(pair: Pair) -> None:
    tokens, attention_mask = prompts()
    positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    theirs = pair.reference(tokens, attention_mask=attention_mask.long(), position_ids=positions).logits
    agree(pair.model(tokens, attention_mask)[attention_mask], theirs[attention_mask])  # what padding predicts does not matter


@torch.no_grad()
def test_logits_with_cache(pair: Pair) -> None:
    tokens, cache, past = random_tokens(2, 20), KVCache(pair.model), None
    for start, end in ((0, 7), (7, 8), (8, 9), (9, 15), (15, 20)):   # many at once and one by one
        out = pair.reference(tokens[:, start:end], past_key_values=past, use_cache=True)
        past = out.past_key_values
        agree(pair.model(tokens[:, start:end], cache=cache), out.logits)


@torch.no_grad()
def test_logits_with_cache_and_left_padding(pair: Pair) -> None:
    tokens, attention_mask = prompts()
    tokens, attention_mask = F.pad(tokens, (0, 6), value=5), F.pad(attention_mask, (0, 6), value=True)
    positions, cache, past = (attention_mask.cumsum(-1) - 1).clamp(min=0), KVCache(pair.model), None
    for start, end in ((0, 9), (9, 10), (10, 15)):
        out = pair.reference(tokens[:, start:end], attention_mask=attention_mask[:, :end].long(),
                             position_ids=positions[:, start:end], past_key_values=past, use_cache=True)
        past, real = out.past_key_values, attention_mask[:, start:end]
        agree(pair.model(tokens[:, start:end], attention_mask[:, :end], cache)[real], out.logits[real])


@torch.no_grad()
def test_greedy_generation(pair: Pair) -> None:
    same_tokens(pair, random_tokens(1, 6), None, n_new=18)


@torch.no_grad()
def test_greedy_generation_of_a_left_padded_batch(pair: Pair) -> None:
    same_tokens(pair, *prompts(), n_new=15)


def test_stop_token_in_a_batch() -> None:
    "After the stop token both fill a row with padding, and end when all rows have ended."
    pair = gpt2()
    tokens, attention_mask = prompts()
    greedily = generate(pair.model, tokens, 15, sampling=GREEDY, attention_mask=attention_mask)
    stop = greedily[0, 4].item()
    ours = generate(pair.model, tokens, 15, sampling=GREEDY, attention_mask=attention_mask, stop_ids=[stop])
    theirs = pair.reference.generate(tokens, attention_mask=attention_mask.long(), do_sample=False,
                                     max_new_tokens=15, pad_token_id=0, eos_token_id=stop)
    assert (ours == 0).any()
    assert torch.equal(ours, theirs[:, tokens.shape[1]:])


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("head_dim", "base"), [(2, 10000.0), (8, 10000.0), (10, 500000.0)])
def test_rotary(head_dim: int, base: float) -> None:
    generator = torch.Generator().manual_seed(SEED)
    query, key = torch.randn(2, 3, 4, 7, head_dim, generator=generator, dtype=torch.float64)
    positions = torch.randint(0, 5000, (3, 7), generator=generator)
    rotation = RotaryEmbedding(head_dim, base).rotation(positions, torch.float64)
    config = LlamaConfig(hidden_size=8 * head_dim, num_attention_heads=8, head_dim=head_dim,
                         rope_parameters={"rope_type": "default", "rope_theta": base})
    reference = modeling_llama.LlamaRotaryEmbedding(config)
    theirs = modeling_llama.apply_rotary_pos_emb(query, key, *reference(query, positions))
    for x, expected in zip((query, key), theirs, strict=True):
        agree(apply_rotary_emb(x, rotation), expected)


def distinct_logits() -> st.SearchStrategy[Tensor]:   # (2, V) float64
    "Random logits, no two of them equal."
    def shuffled(size: int, spread: float, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        rows = [torch.randperm(size, generator=generator) for _ in range(2)]
        return torch.stack(rows).double() * spread / size - spread / 2

    return st.builds(shuffled, st.integers(1, 60), st.floats(0.5, 30.0), st.integers(0, 2**31))


def same_probabilities(ours: Tensor, theirs: Tensor) -> None:
    "The same tokens are kept, with the same probabilities."
    assert torch.equal(ours > -torch.inf, theirs > -torch.inf)
    agree(ours.softmax(-1), theirs.softmax(-1))


def assume_clear(logits: Tensor, p: float) -> None:
    "Leave out a p that some tokens have together exactly: rounding decides there."
    together = logits.softmax(-1).sort(descending=True).values.cumsum(-1)
    assume((together - p).abs().min() > 1e-9)


def tied_logits() -> st.SearchStrategy[Tensor]:   # (1, V) float64
    "Small whole numbers, so that many are equal."
    whole = st.lists(st.integers(-3, 3), min_size=1, max_size=40)
    return whole.map(lambda numbers: torch.tensor([numbers], dtype=torch.float64))


@given(logits=distinct_logits(), k=st.integers(1, 70))
def test_top_k(logits: Tensor, k: int) -> None:
    same_probabilities(top_k(logits, k), TopKLogitsWarper(k)(None, logits))


@given(logits=distinct_logits(), p=st.floats(0, 1))
def test_min_p(logits: Tensor, p: float) -> None:
    share = logits.softmax(-1) / logits.softmax(-1).amax(-1, keepdim=True)
    assume((share - p).abs().min() > 1e-9)   # rounding decides there
    same_probabilities(min_p(logits, p), MinPLogitsWarper(p)(None, logits.clone()))


@given(logits=distinct_logits(), penalty=st.floats(0.5, 2.0), seed=st.integers(0, 2**31))
def test_repetition_penalty(logits: Tensor, penalty: float, seed: int) -> None:
    tokens = torch.randint(logits.shape[-1], (2, 7), generator=torch.Generator().manual_seed(seed))
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(tokens, logits.clone())
    agree(repetition_penalty(logits, tokens, penalty), theirs)


@given(logits=tied_logits(), k=st.integers(1, 50))
def test_top_k_at_ties(logits: Tensor, k: int) -> None:
    "geminiq keeps exactly k tokens; transformers keeps these and all that tie with the last of them."
    ours, theirs = top_k(logits, k), TopKLogitsWarper(k)(None, logits)
    kept, kept_by_them = ours > -torch.inf, theirs > -torch.inf
    assert kept.sum() == min(k, logits.shape[-1])
    assert (kept <= kept_by_them).all()
    assert (logits[kept_by_them & ~kept] == logits[kept].min()).all()


@given(logits=distinct_logits(), p=st.floats(0.01, 0.99))
def test_top_p(logits: Tensor, p: float) -> None:
    assume_clear(logits, p)
    same_probabilities(top_p(logits, p), TopPLogitsWarper(p)(None, logits))


@given(logits=tied_logits(), p=st.floats(0.01, 0.99))
def test_top_p_at_ties(logits: Tensor, p: float) -> None:
    "Which of equally likely tokens is kept is open; how many, and their probabilities, are not."
    assume_clear(logits, p)
    ours, theirs = top_p(logits, p), TopPLogitsWarper(p)(None, logits)
    agree(ours.softmax(-1).sort().values, theirs.softmax(-1).sort().values)


@given(logits=st.one_of(distinct_logits(), tied_logits()), value=st.floats(0.05, 20.0))
def test_temperature(logits: Tensor, value: float) -> None:
    same_probabilities(temperature(logits, value), TemperatureLogitsWarper(value)(None, logits))


def factors(make: Callable, **how: float) -> Callable[[int], float]:
    "The factor of a schedule of transformers at each step."
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    return make(optimizer, **how).lr_lambdas[0]


@settings(deadline=None)
@given(warmup=st.integers(0, 60), steps=st.integers(1, 300), final=st.floats(0.0, 1.0))
def test_schedules(warmup: int, steps: int, final: float) -> None:
    "The same factor at every step of training; with a last factor other than 0 too."
    ends = {"num_warmup_steps": warmup, "num_training_steps": warmup + steps}
    pairs = [
        (constant_schedule, 0.0,
         factors(transformers.get_constant_schedule_with_warmup, num_warmup_steps=warmup)),
        (linear_schedule, 0.0, factors(transformers.get_linear_schedule_with_warmup, **ends)),
        (cosine_schedule, 0.0, factors(transformers.get_cosine_schedule_with_warmup, **ends)),
        (cosine_schedule, final,
         factors(transformers.get_cosine_with_min_lr_schedule_with_warmup, **ends, min_lr_rate=final)),
    ]
    for ours, fraction, theirs in pairs:
        for step in range(1, warmup + steps + 1):
            assert abs(ours(step, warmup, warmup + steps, fraction) - theirs(step)) <= 1e-12
