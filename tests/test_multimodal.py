"""Pictures in a text: against LLaVA of transformers, PyTorch's own attention, loops, and each row alone."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imsave
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from typer.testing import CliRunner

from geminiq.cli import app
from geminiq.data.dataset import IGNORE_INDEX
from geminiq.data.scenes import Scenes, render, sample_scenes
from geminiq.data.tokenizer import train_tokenizer
from geminiq.generation.beam_search import beam_search
from geminiq.generation.cache import KVCache
from geminiq.generation.generate import generate, left_pad
from geminiq.models import multimodal, vision
from geminiq.models.moe import record_routing
from geminiq.models.multimodal import (
    FUSIONS,
    PROJECTORS,
    CrossAttentionBlock,
    Fusion,
    ImageContext,
    ImagePrompt,
    LinearProjector,
    MLPProjector,
    MultimodalFusion,
    Resampler,
    VisionConfig,
    VisionEncoder,
    VisionLanguageModel,
    answer_targets,
    build_vision_language_model,
    encode_with_images,
    expand_image_tokens,
    generate_from_images,
    generate_text_from_images,
    load_image,
    look_at,
    merge_image_features,
    prepare_scenes,
)
from geminiq.models.transformer import Transformer
from geminiq.models.vision import VISION_PRESETS, init_by_fan_in, load_vision_config
from geminiq.training.losses import cross_entropy_loss
from geminiq.training.trainer import DATASETS, make_trainer, resume_trainer
from geminiq.utils.checkpointing import build_model, load_checkpoint
from geminiq.utils.config import Config, ModelConfig, load_config, make_config, preset_names, save_config
from geminiq.utils.device import UserError, make_generator
from geminiq.utils.terminal import printable
from helpers import GREEDY, agree, assert_generator_decides, random, scatter_weights, tiny_model

TOLERANCE = 1e-11   # relative to the largest number
IMAGE, V = 7, 50


# LLaVA


NAMES = {   # of LLaVA and of geminiq, in the order in which they are replaced
    r"^model\.vision_tower\.(vision_model\.)?": "vision_tower.", r"^model\.multi_modal_projector\.": "projector.maps.",
    r"^model\.language_model\.": "language_model.", r"^lm_head": "language_model.lm_head",
    r"linear_1": "0", r"linear_2": "2", r"embeddings\.class_embedding": "cls_token",
    r"embeddings\.position_embedding\.weight": "position_embeddings", r"embeddings\.patch_embedding": "patches.projection",
    r"pre_layrnorm": "embedding_norm", r"post_layernorm": "norm", r"encoder\.layers": "blocks", r"layer_norm1": "attention_norm",
    r"layer_norm2": "feed_forward_norm", r"mlp\.fc1": "feed_forward.up", r"mlp\.fc2": "feed_forward.down",
    r"embed_tokens": "embedding", r"language_model\.layers": "language_model.blocks", r"input_layernorm": "attention_norm",
    r"post_attention_layernorm": "feed_forward_norm", r"mlp\.(up|gate|down)_proj": r"feed_forward.\1",
    r"self_attn\.q_proj": "attention.query", r"self_attn\.k_proj": "attention.key", r"self_attn\.v_proj": "attention.value",
    r"self_attn\.(o|out)_proj": "attention.output",
}


def renamed(name: str) -> str:
    "A name of LLaVA's by the names of geminiq."
    for old, new in NAMES.items():
        name = re.sub(old, new, name)
    return name


@pytest.fixture
def llava(exact: None) -> tuple[VisionLanguageModel, LlavaForConditionalGeneration]:
    "LLaVA twice, with the same random weights; a CLIP of three layers read before its last, 3 × 3 patches, a LLaMA of two."
    eye = CLIPVisionConfig(image_size=12, patch_size=4, hidden_size=16, num_hidden_layers=3, num_attention_heads=4,
                           intermediate_size=24)
    text = LlamaConfig(vocab_size=V, max_position_embeddings=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=2, intermediate_size=40, rms_norm_eps=1e-3, bos_token_id=None, eos_token_id=None)
    config = LlavaConfig(vision_config=eye, text_config=text, image_token_index=IMAGE, vision_feature_layer=-2,
                         vision_feature_select_strategy="default")
    reference = scatter_weights(LlavaForConditionalGeneration(config).double().eval(), 0.3)
    encoder = VisionEncoder(VisionConfig(image_size=12, patch_size=4, num_channels=3, d_model=16, n_layers=3, n_heads=4, d_ff=24,
                                         norm_eps=eye.layer_norm_eps, activation="quick_gelu", embedding_norm=True))
    language = Transformer(ModelConfig(vocab_size=V, max_seq_len=64, d_model=24, n_layers=2, n_heads=4, attention_type="gqa",
                                       n_kv_heads=2, d_ff=40, norm_eps=1e-3, tie_embeddings=False))
    model = VisionLanguageModel(encoder, MLPProjector(16, 24), language, IMAGE, vision_feature_layer=-2).double().eval()
    state = {renamed(name): p for name, p in reference.named_parameters()}
    state.setdefault("vision_tower.patches.projection.bias", torch.zeros(16))   # CLIP has none
    model.load_state_dict({name: p.reshape(model.get_parameter(name).shape) for name, p in state.items()})
    return model, reference


ROWS = [[1, 2, 3, IMAGE, 4], [5, 6, 8], [IMAGE, 2, 9, IMAGE, 3, 11, 12, 13], [IMAGE]]   # one, none, two, one


@torch.no_grad()
def test_llava_logits(llava: tuple) -> None:
    "At all positions of the text, in a padded batch; transformers wants each image token as often as there are patches."
    model, reference = llava
    tokens, attention_mask = left_pad(ROWS)
    images = random(4, 3, 12, 12)
    row = expand_image_tokens(tokens, IMAGE, 9, attention_mask)
    positions = (row.attention_mask.cumsum(-1) - 1).clamp(min=0)
    theirs = reference(input_ids=row.tokens, pixel_values=images, attention_mask=row.attention_mask.long(),
                       position_ids=positions).logits
    ours = model(tokens, images, attention_mask)
    for i in range(len(ROWS)):
        agree(ours[i][attention_mask[i]], theirs[i][row.places[i][attention_mask[i]]])


@torch.no_grad()
def test_llava_writes_the_same(llava: tuple) -> None:
    model, reference = llava
    tokens, attention_mask = left_pad(ROWS)
    images = random(4, 3, 12, 12)
    row = expand_image_tokens(tokens, IMAGE, 9, attention_mask)
    theirs = reference.generate(input_ids=row.tokens, pixel_values=images, attention_mask=row.attention_mask.long(),
                                do_sample=False, max_new_tokens=10, pad_token_id=0, suppress_tokens=[IMAGE])
    ours = generate_from_images(model, tokens, images, 10, attention_mask, sampling=GREEDY)
    assert ours.unique().numel() > 3
    assert torch.equal(ours, theirs[:, row.tokens.shape[1]:])


def test_llava_gradients(llava: tuple) -> None:
    "Of the loss on two answers, number by number; the last block of the encoder and its norm are not read."
    model, reference = llava
    tokens, images = torch.tensor([[1, IMAGE, 3, 4], [IMAGE, 5, 6, 9]]), random(2, 3, 12, 12)
    targets = torch.tensor([[IGNORE_INDEX, 5, 6, 8], [2, IGNORE_INDEX, IGNORE_INDEX, 3]])
    cross_entropy_loss(model(tokens, images), targets).backward()
    row = expand_image_tokens(tokens, IMAGE, 9)
    longer = torch.full_like(row.tokens, IGNORE_INDEX).scatter(1, row.places, targets)
    cross_entropy_loss(reference(input_ids=row.tokens, pixel_values=images).logits, longer).backward()
    theirs = {renamed(name): p.grad for name, p in reference.named_parameters()}
    largest = max(gradient.abs().max() for gradient in theirs.values() if gradient is not None)
    compared = 0
    for name, p in model.named_parameters():
        if p.grad is None or name == "vision_tower.patches.projection.bias":
            assert name.startswith(("vision_tower.blocks.2.", "vision_tower.norm.", "vision_tower.patches.projection.bias")), name
            continue
        assert (p.grad - theirs[name].reshape(p.shape)).abs().max() <= TOLERANCE * largest, name
        compared += 1
    assert compared > 50


# The parts


def copy_attention(ours: nn.Module) -> nn.MultiheadAttention:
    "PyTorch's attention with the weights of ours."
    theirs = nn.MultiheadAttention(ours.query.in_features, ours.n_heads, kdim=ours.key.in_features, vdim=ours.key.in_features,
                                   batch_first=True).double()
    split = {f"{name[0]}_proj_weight": getattr(ours, name).weight for name in ("query", "key", "value")}
    if theirs.in_proj_weight is not None:
        split = {"in_proj_weight": torch.cat(list(split.values()))}
    theirs.load_state_dict(split | {"in_proj_bias": torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]),
                                    "out_proj.weight": ours.output.weight, "out_proj.bias": ours.output.bias})
    return theirs


def cross_by_pytorch(block: CrossAttentionBlock, x: Tensor, context: Tensor, seen: Tensor) -> Tensor:
    "What a block computes, with PyTorch's attention; `seen` is (B, S)."
    gates = [1.0, 1.0] if block.gates is None else block.gates.tanh()
    context = block.context_norm(context)
    x = x + gates[0] * copy_attention(block.attention)(block.attention_norm(x), context, context, key_padding_mask=~seen)[0]
    return x + gates[1] * block.feed_forward(block.feed_forward_norm(x))


@torch.no_grad()
@settings(deadline=None, max_examples=30)
@given(T=st.integers(1, 5), n=st.integers(1, 7), queries=st.integers(1, 4), layers=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_resampler(T: int, n: int, queries: int, layers: int, seed: int) -> None:
    "Against PyTorch's attention; as many vectors come out whatever goes in, and padding does not count."
    resampler = Resampler(6, 8, queries, layers, 2).double()
    scatter_weights(resampler, 0.4, 0.2, seed)
    features = random(T, n, 6, seed=seed)
    mask = torch.rand(T, n, generator=make_generator(seed)) < 0.6   # a row may be empty: the queries see themselves
    x = resampler.queries.expand(T, -1, -1)
    for block in resampler.blocks:
        both = torch.cat([resampler.input(features), x], dim=1)
        x = cross_by_pytorch(block, x, both, torch.cat([mask, torch.ones(T, queries, dtype=torch.bool)], dim=1))
    assert resampler(features, mask).shape == (T, queries, 8)
    agree(resampler(features, mask), resampler.norm(x))
    agree(resampler(features.masked_fill(~mask[..., None], 1e3), mask), resampler(features, mask))


@torch.no_grad()
@pytest.mark.parametrize("strategy", ["cross_attention", "gated", "concat"])
def test_fusion(strategy: str) -> None:
    fusion = MultimodalFusion(8, 2, strategy=strategy).double()
    scatter_weights(fusion, 0.4, 0.2)
    text, image = random(3, 5, 8), random(3, 7, 8, seed=1)
    text_mask, image_mask = (torch.arange(n) < torch.tensor([[n], [n - 2], [1]]) for n in (5, 7))
    if strategy == "concat":
        both = torch.cat([image, text], dim=1)
        both = cross_by_pytorch(fusion.text, both, both, torch.cat([image_mask, text_mask], dim=1))
        expected = both[:, 7:], both[:, :7]
    else:
        expected = cross_by_pytorch(fusion.text, text, image, image_mask), image
        if strategy == "cross_attention":
            expected = expected[0], cross_by_pytorch(fusion.image, image, text, text_mask)
    for ours, theirs in zip(fusion(text, image, text_mask, image_mask), expected, strict=True):
        agree(ours, theirs)


def test_closed_gates_are_the_identity_and_open() -> None:
    fusion = MultimodalFusion(8, 2, "gated").double()
    text, image = random(2, 5, 8), random(2, 7, 8, seed=1)
    assert torch.equal(fusion(text, image)[0], text)
    optimizer = torch.optim.SGD(fusion.parameters(), 0.1)
    (fusion(text, image)[0] ** 2).sum().backward()
    optimizer.step()
    assert (fusion(text, image)[0] - text).abs().max() > 1e-4


def make_fusion(d_vision: int, d_model: int, generator: torch.Generator) -> MultimodalFusion:
    return MultimodalFusion(d_model, 2, "cross_attention", generator)


@pytest.mark.parametrize("make", [LinearProjector, MLPProjector, Resampler, make_fusion])
def test_the_generator_alone_decides_the_first_weights(make: Callable) -> None:
    assert_generator_decides(lambda generator: make(6, 8, generator=generator))


@settings(deadline=None)
@given(rows=st.lists(st.lists(st.sampled_from([1, 2, IMAGE]), min_size=1, max_size=6), min_size=1, max_size=5),
       n=st.integers(1, 4), padded_right=st.booleans())
def test_expand_image_tokens(rows: list[list[int]], n: int, padded_right: bool) -> None:
    "Row by row in lists: the same tokens, whichever side the padding was on."
    tokens, attention_mask = left_pad(rows)
    if padded_right:
        tokens, attention_mask = (torch.stack([part.roll(len(row)) for part, row in zip(parts, rows, strict=True)])
                            for parts in (tokens, attention_mask))
    row = expand_image_tokens(tokens, IMAGE, n, attention_mask)
    mask = torch.ones_like(row.tokens, dtype=torch.bool) if row.attention_mask is None else row.attention_mask
    longest = max(sum(n if token == IMAGE else 1 for token in padded) for padded in tokens.tolist())
    assert row.tokens.shape == mask.shape == (len(rows), longest)
    for i, text in enumerate(rows):
        longer = [token for token in text for _ in range(n if token == IMAGE else 1)]
        assert row.tokens[i][mask[i]].tolist() == longer
        places = row.places[i][attention_mask[i]].tolist()
        first = int(mask[i].nonzero()[0])
        assert places == [first + sum(n if t == IMAGE else 1 for t in text[:k + 1]) - 1 for k in range(len(text))]
    if row.attention_mask is not None:
        assert not row.attention_mask.all()


# The model


def make_model(fusion: str, projector: Callable = MLPProjector, position: str = "rope", experts: int = 0,
               **how: object) -> VisionLanguageModel:
    "A random model in double precision, with open gates and logits far enough apart."
    generator = make_generator(1)
    sizes = {"image_size": 8, "patch_size": 4, "num_channels": 2, "d_model": 12, "n_layers": 3, "n_heads": 2}
    encoder = VisionEncoder(VisionConfig(**sizes), generator)
    language = tiny_model(vocab_size=V, max_seq_len=96, n_layers=3, pos_encoding=position, tie_embeddings=False,
                          use_moe=experts > 0, num_experts=max(2, experts), capacity_factor=0.6)
    projector = projector(12, 16, generator=generator)
    model = VisionLanguageModel(encoder, projector, language, IMAGE, fusion, generator=generator, **how).double()
    init_by_fan_in(model.language_model, generator)
    for block in language.blocks:
        if block.cross_attn is not None and block.cross_attn.gates is not None:
            nn.init.constant_(block.cross_attn.gates, 0.8)
    return model


MODELS = [(fusion, {}) for fusion in FUSIONS] + [
    ("concat", {"projector": lambda *widths, generator: Resampler(*widths, 3, 1, 2, generator)}),
    ("concat", {"position": "learned", "vision_feature_layer": -2}), ("concat", {"position": "alibi", "keep_cls": True}),
    ("gated", {"cross_every": 2, "vision_feature_layer": 1}), ("gated", {"position": "learned", "keep_cls": True}),
    ("cross_attention", {"cross_every": 2, "position": "alibi", "keep_cls": True}),
]
BATCH = [[1, 2, 3, IMAGE, 4], [5, 6, 8], [IMAGE, 2, IMAGE, 3, 4, 9, 11], [IMAGE, IMAGE, 1, IMAGE]]
OWN = [slice(0, 1), slice(1, 1), slice(1, 3), slice(3, 6)]   # the images of each row


def pictures(n: int = 6) -> Tensor:
    return torch.rand(n, 2, 8, 8, generator=make_generator(3), dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_padding_is_nothing_to_experts(fusion: str, side: str) -> None:
    "In training, with few places: the same tokens at the same experts, and the same answers, as without padding."
    model, padding = make_model(fusion, experts=3), [0] * 7
    text = torch.tensor([BATCH[2]])
    row = padding + BATCH[2] if side == "left" else BATCH[2] + padding
    mask = torch.tensor([row]) != 0
    with record_routing(model) as alone:
        expected = model(text, pictures(2))
    with record_routing(model) as padded:
        found = model(torch.tensor([row]), pictures(2), mask)
    agree(found[mask], expected[0])
    for first, second in zip(alone, padded, strict=True):
        assert torch.equal(first.selected_experts, second.selected_experts)


@torch.no_grad()
@pytest.mark.parametrize(("fusion", "how"), MODELS)
def test_each_row_alone(fusion: str, how: dict) -> None:
    "One, no, two and three pictures in a row, padded on the left; and the gradient flows to the pictures of each."
    model, images = make_model(fusion, **how), pictures()
    tokens, attention_mask = left_pad(BATCH)
    together = model(tokens, images, attention_mask)
    for row, mask, text, own in zip(together, attention_mask, BATCH, OWN, strict=True):
        agree(row[mask], model(torch.tensor([text]), images[own])[0])
    text = torch.tensor(BATCH[1:2])
    assert torch.equal(model(text), model.language_model(text))


@pytest.mark.parametrize(("fusion", "how"), MODELS)
def test_gradient_flows_everywhere(fusion: str, how: dict) -> None:
    "Into every parameter that is read, and into every picture; a bias of keys has none, softmax ignores it."
    model, images = make_model(fusion, **how), pictures().requires_grad_()
    tokens, attention_mask = left_pad(BATCH)
    targets = torch.randint(V, tokens.shape, generator=make_generator(0)).masked_fill(~attention_mask, IGNORE_INDEX)
    targets[3, :-1] = IGNORE_INDEX
    cross_entropy_loss(model(tokens, images, attention_mask), targets).backward()
    assert (images.grad.flatten(1).abs().amax(1) > 0).all()
    layer = how.get("vision_feature_layer")
    unread = [] if layer is None else ["vision_tower.norm.", *(f"vision_tower.blocks.{i}." for i in range(layer % 4, 3))]
    for name, p in model.named_parameters():
        if "key.bias" in name or name == "language_model.position.weight":
            continue
        assert (p.grad is None or p.grad.abs().max() == 0) == name.startswith(tuple(unread)), name


@torch.no_grad()
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_picture_changes_only_what_follows(fusion: str) -> None:
    model, images = make_model(fusion), pictures(2)
    tokens = torch.tensor([[1, IMAGE, 2, IMAGE, 3]])
    before = model(tokens, images)
    for i, first in enumerate((1, 3)):
        other = images.clone()
        other[i] = 1 - other[i]
        change = (model(tokens, other) - before).abs().amax(-1)[0]
        assert (change > 1e-9).tolist() == [t >= first for t in range(5)]
        assert change[:first].max() == 0
    assert (model(tokens, images.flip(0)) - before).abs().max() > 1e-6   # which is which matters


@torch.no_grad()
def test_closed_gates_leave_the_language_model_alone() -> None:
    model = make_model("gated")
    for block in model.language_model.blocks:
        nn.init.zeros_(block.cross_attn.gates)
    tokens, attention_mask = left_pad(BATCH)
    assert torch.equal(model(tokens, pictures(), attention_mask), model.language_model(tokens, attention_mask))


@torch.no_grad()
@pytest.mark.parametrize(("layer", "keep_cls"), [(None, False), (None, True), (-2, False), (0, True), (3, False)])
def test_what_is_shown(layer: int | None, keep_cls: bool) -> None:
    model, images = make_model("concat", vision_feature_layer=layer, keep_cls=keep_cls), pictures(2)
    shown = model.vision_tower(images) if layer is None else model.vision_tower.hidden_states(images, layer)
    agree(model.get_image_features(images), model.projector(shown[:, 0 if keep_cls else 1:]))


def by_loops(model: VisionLanguageModel, text: list[int], images: Tensor, steps: int) -> list[int]:
    "The slow and obviously right way: the whole text and all pictures for every token."
    text = list(text)
    for _ in range(steps):
        logits = model(torch.tensor([text]), images)[0, -1].clone()
        logits[IMAGE] = -torch.inf
        text.append(int(logits.argmax()))
    return text[-steps:]


@torch.no_grad()
@pytest.mark.parametrize(("fusion", "how"), MODELS)
def test_writing_with_a_cache(fusion: str, how: dict) -> None:
    "A batch of different lengths and numbers of pictures; the encoder looks once; beams of one write the same."
    model, images = make_model(fusion, **how), pictures()
    tokens, attention_mask = left_pad(BATCH)
    expected = [by_loops(model, text, images[own], 12) for text, own in zip(BATCH, OWN, strict=True)]
    assert len({token for row in expected for token in row}) > 3
    calls = []
    model.vision_tower.patches.register_forward_hook(lambda *_: calls.append(1))
    for use_cache in (True, False):
        written = generate_from_images(model, tokens, images, 12, attention_mask, sampling=GREEDY, use_cache=use_cache)
        assert written.tolist() == expected
    assert len(calls) == 2
    prompt = ImagePrompt(model, tokens, images, attention_mask)
    for num_beams in (1, 3):
        cached, again = (beam_search(prompt, prompt.tokens, 6, num_beams, num_return_sequences=num_beams,
                                     attention_mask=prompt.attention_mask, use_cache=use_cache) for use_cache in (True, False))
        assert [[beam.tokens for beam in row] for row in cached] == [[beam.tokens for beam in row] for row in again]
        agree(*(torch.tensor([[beam.score for beam in row] for row in found], dtype=torch.float64) for found in (cached, again)))
        if num_beams == 1:
            assert [row[0].tokens for row in cached] == [row[:6] for row in expected]
    for i, (text, own) in enumerate(zip(BATCH, OWN, strict=True)):     # the beams of a row see the pictures of this row
        alone = ImagePrompt(model, torch.tensor([text]), images[own])
        assert beam_search(alone, alone.tokens, 6, 3, attention_mask=alone.attention_mask)[0][0].tokens == cached[i][0].tokens


@torch.no_grad()
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_prompt_in_pieces(fusion: str) -> None:
    "Through a cache in any pieces, also across a picture: the features of the whole."
    model, images = make_model(fusion), pictures()
    tokens, attention_mask = left_pad(BATCH)
    prompt = ImagePrompt(model, tokens, images, attention_mask)
    T = prompt.tokens.shape[1]
    whole = prompt.hidden_states(prompt.tokens, prompt.attention_mask)
    for cuts in ([0, 2, 3, T], [0, 1, T - 1, T]):
        cache = KVCache(prompt)
        pieces = [prompt.hidden_states(prompt.tokens[:, a:b], prompt.attention_mask[:, :b], cache)
                  for a, b in pairwise(cuts)]
        agree(torch.cat(pieces, dim=1)[prompt.attention_mask], whole[prompt.attention_mask])


@torch.no_grad()
@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_image_token_is_never_written(fusion: str) -> None:
    model = make_model(fusion)
    nn.init.zeros_(model.language_model.lm_head.weight)
    model.language_model.lm_head.weight[IMAGE] = 1.0
    tokens = torch.tensor([[1, IMAGE, 2]])
    drawn = generate_from_images(model, tokens, pictures(1), 60, generator=make_generator(0))
    assert (drawn != IMAGE).all()


def test_images_are_looked_at_without_dropout() -> None:
    encoder = VisionEncoder(VisionConfig(image_size=8, patch_size=4, num_channels=2, d_model=12, n_heads=2, dropout=0.5))
    language = tiny_model(vocab_size=V, dropout=0.5)
    model = VisionLanguageModel(encoder, LinearProjector(12, 16), language, IMAGE).double()
    tokens, images = torch.tensor([[IMAGE, 3]]), pictures(1)
    looked = [ImagePrompt(model, tokens, images).inputs_embeds for _ in range(2)]
    assert torch.equal(*looked) and model.training and model.vision_tower.training
    prompt = ImagePrompt(model, tokens, images)
    generate(prompt, prompt.tokens, 2)
    assert model.training


@torch.no_grad()
@pytest.mark.parametrize("image_token_id", [-200, V, V + 9])
def test_an_image_token_outside_the_vocabulary(image_token_id: int) -> None:
    "As in the first LLaVA, −200: where the vectors of images stand in the text, it needs no embedding."
    model, images = make_model("concat"), pictures(1)
    inside = model(torch.tensor([[1, IMAGE, 2]]), images)
    model.image_token_id = image_token_id
    tokens = torch.tensor([[1, image_token_id, 2]])
    assert torch.equal(model(tokens, images), inside)
    assert generate_from_images(model, tokens, images, 4).shape == (1, 4)


# Mistakes


def test_mistakes_are_named() -> None:
    model = make_model("concat")
    tokens = torch.tensor([[1, IMAGE, 2], [IMAGE, IMAGE, 3]])
    for call in (model, lambda *given: ImagePrompt(model, *given)):
        with pytest.raises(UserError, match=r"3 image tokens \(id 7\), but there are 2 images"):
            call(tokens, pictures(2))
        with pytest.raises(UserError, match=r"3 image tokens .* 0 images"):
            call(tokens)
        with pytest.raises(UserError, match=r"0 image tokens .* 1 images"):
            call(torch.tensor([[1]]), pictures(1))
    with pytest.raises(UserError, match=r"10 × 8 cannot be cut into patches of 4 × 4"):
        model(tokens, torch.zeros(3, 2, 10, 8, dtype=torch.float64))
    with pytest.raises(UserError, match="width of 12 to 24, but the vision encoder is 12 wide and the language model 16"):
        make_model("concat", lambda *widths, generator: LinearProjector(12, 24))
    with pytest.raises(UserError, match="width of 9 to 16, but the vision encoder is 12 wide"):
        make_model("concat", lambda *widths, generator: Resampler(9, 16))
    with pytest.raises(UserError, match="fusion 'splice' is unknown: known are concat, cross_attention, gated"):
        make_model("splice")
    with pytest.raises(UserError, match="fusion 'gates' is unknown: did you mean gated"):
        MultimodalFusion(8, 2, "gates")


def test_nothing_to_see_passes_unchanged() -> None:
    block, x = CrossAttentionBlock(8, 2).double(), random(2, 3, 8)
    mask = torch.tensor([[[True, False], [False, False], [True, True]]]).expand(2, -1, -1)
    y = block(x, ImageContext(random(2, 2, 8, seed=1), mask))
    assert torch.equal(y[:, 1], x[:, 1])
    assert not torch.isnan(y).any() and ((y - x)[:, [0, 2]].abs().amax(-1) > 0).all()


def test_texts_with_pictures() -> None:
    tokenizer = train_tokenizer(["what is this? a ring"] * 9, 290)
    ids = encode_with_images(tokenizer, "<image>what is<image> this?", 777)
    assert ids == [777, *tokenizer.encode("what is"), 777, *tokenizer.encode(" this?")]
    assert encode_with_images(tokenizer, "a ring", 777) == tokenizer.encode("a ring")
    inputs, targets = answer_targets([4, 777, 5], [6, 3])
    assert inputs.tolist() == [4, 777, 5, 6] and targets.tolist() == [IGNORE_INDEX, IGNORE_INDEX, 6, 3]


def test_the_vision_classes_are_here_too() -> None:
    for name in ("PatchEmbedding", "VisionConfig", "VisionEncoder", "ImageClassifier"):
        assert getattr(multimodal, name) is getattr(vision, name)
        assert name in multimodal.__all__


# What is looked at is held for the time of a call


class Broken(Exception):
    "Something that goes wrong while a block looks."


def held(model: nn.Module) -> list[ImageContext | None]:
    "What each cross-attention block holds."
    return [module.context for module in model.modules() if isinstance(module, CrossAttentionBlock)]


def test_look_at() -> None:
    "Held or given is the same; nested, the inner one counts; nothing stays, also after an error."
    block, x = CrossAttentionBlock(8, 2).double(), random(2, 3, 8)
    first, second = (ImageContext(random(2, 4, 8, seed=seed)) for seed in (1, 2))
    assert torch.equal(block(x), x)
    with look_at(block, first):
        with look_at(block, second):
            assert torch.equal(block(x), block(x, second))
        assert torch.equal(block(x), block(x, first))
        assert not torch.equal(block(x), block(x, second))
        with look_at(block, None):
            assert torch.equal(block(x), x)
    with pytest.raises(Broken), look_at(block, first):
        raise Broken
    assert held(block) == [None]


@pytest.mark.parametrize("fusion", ["cross_attention", "gated"])
def test_nothing_stays_in_the_model(fusion: str) -> None:
    "After reading, after writing, and after an error inside, the language model is alone again."
    model, images = make_model(fusion), pictures(1)
    tokens = torch.tensor([[1, IMAGE, 2]])
    alone = model.language_model(tokens)
    model(tokens, images)
    generate_from_images(model, tokens, images, 3)
    assert held(model) == [None] * 3 and torch.equal(model.language_model(tokens), alone)

    def fail(*_: object) -> None:
        raise Broken

    hook = model.language_model.blocks[1].register_forward_hook(fail)
    for call in (lambda: model(tokens, images), lambda: generate_from_images(model, tokens, images, 3)):
        with pytest.raises(Broken):
            call()
        assert held(model) == [None] * 3
    hook.remove()
    assert torch.equal(model.language_model(tokens), alone)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradient_checkpointing(fusion: str) -> None:
    "Blocks that are computed again look at the same images again: two batches, then their gradients, in either order."
    batches = [(torch.tensor([[1, IMAGE, 2, 5], [3, 4, IMAGE, 6]]), pictures(2)),
               (torch.tensor([[IMAGE, 8, 9]]), 1 - pictures(1))]
    found = []
    for checkpointing, order in ((False, 1), (True, 1), (True, -1)):
        model = make_model(fusion).train()
        model.language_model.gradient_checkpointing = checkpointing
        calls = []
        model.language_model.blocks[0].attention.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        losses = [cross_entropy_loss(model(tokens, images), tokens.roll(-1, 1)) for tokens, images in batches]
        for loss in losses[::order]:
            loss.backward()
        assert len(calls) == (4 if checkpointing else 2)
        found.append({name: p.grad for name, p in model.named_parameters()})
    for again in found[1:]:
        for name, gradient in found[0].items():
            assert (gradient is None) == (again[name] is None)
            assert gradient is None or (gradient - again[name]).abs().max() <= TOLERANCE * gradient.abs().max() + 1e-15, name


@torch.no_grad()
@pytest.mark.parametrize(("fusion", "place", "has_feed_forward"),
                         [("gated", "before", True), ("cross_attention", "between", False)])
def test_where_a_block_looks(fusion: str, place: str, has_feed_forward: bool) -> None:
    "Before self-attention, as Flamingo does, or between it and feed-forward, as the decoder of the first transformer did."
    model, images = make_model(fusion), pictures(1)
    tokens = torch.tensor([[IMAGE, 1, 2]])
    block = model.language_model.blocks[0]
    assert block.cross_attn_place == place and (block.cross_attn.feed_forward is not None) == has_feed_forward
    order = []
    for name in ("attention", "cross_attn", "feed_forward"):
        getattr(block, name).register_forward_hook(lambda *_, name=name: order.append(name))
    model(tokens, images)
    expected = ["attention", "feed_forward"]
    expected.insert(0 if place == "before" else 1, "cross_attn")
    assert order == expected


@torch.no_grad()
def test_a_fusion_of_your_own(monkeypatch: pytest.MonkeyPatch) -> None:
    "Any name with its facts in FUSIONS: gates, and yet between."
    monkeypatch.setitem(FUSIONS, "own", Fusion(gated=True, place="between"))
    model, images = make_model("own"), pictures(1)
    tokens = torch.tensor([[1, IMAGE, 2]])
    assert model.language_model.blocks[0].cross_attn_place == "between"
    assert (model(tokens, images) - model.language_model(tokens)).abs().max() > 1e-6
    for block in model.language_model.blocks:
        nn.init.zeros_(block.cross_attn.gates)
    assert torch.equal(model(tokens, images), model.language_model(tokens))


def test_merge_image_features() -> None:
    "Words from the table, the images' vectors in their places, in the order of the text; both get their gradients."
    words = nn.Embedding(V, 4).double()
    row = expand_image_tokens(torch.tensor([[1, IMAGE, 2], [IMAGE, 3, IMAGE]]), IMAGE, 2)
    features = random(3, 2, 4).requires_grad_()
    merged = merge_image_features(row.tokens, features, words, IMAGE)
    assert torch.equal(merged[row.tokens == IMAGE], features.flatten(0, 1))
    assert torch.equal(merged[0, 1], words.weight[1]) and torch.equal(merged[0, 4], words.weight[2])
    merged.sum().backward()
    assert (features.grad == 1).all() and words.weight.grad[3].eq(1).all()


# From a configuration to an answer


SMALL = {"model": {"vocab_size": 340, "max_seq_len": 64, "d_model": 16, "n_layers": 2, "n_heads": 2},
         "training": {"max_steps": 6, "batch_size": 8, "learning_rate": 3e-3, "schedule": "constant", "warmup_steps": 2,
                      "eval_every": 3, "eval_batches": 2, "save_every": 3, "device": "cpu", "use_amp": False},
         "data": {"train_path": "scenes"},
         "vision": {"image_size": 16, "patch_size": 8, "num_channels": 3, "d_model": 12, "n_layers": 1, "n_heads": 2,
                    "image_mean": 0.8, "image_std": 0.3}}


def small_config(section: str = "vision", **changes: object) -> Config:
    "A configuration of a small model that sees, with some keys changed."
    return make_config(SMALL | {section: SMALL[section] | changes})


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    "300 training scenes and 40 for the evaluation, in place of tens of thousands."
    monkeypatch.setitem(DATASETS, "scenes", partial(prepare_scenes, n_train=300, n_val=40))


@torch.no_grad()
@pytest.mark.parametrize("projector", PROJECTORS)
def test_a_configured_model_has_the_configured_parts(projector: str) -> None:
    "Its last token stands for a picture, and its weights are those of its generator."
    config = small_config(projector=projector)
    model, same, other = (build_vision_language_model(config, make_generator(seed)).eval() for seed in (1, 1, 2))
    assert isinstance(model.projector, PROJECTORS[projector]) and model.image_token_id == 339
    tokens, images = torch.tensor([[1, 339, 2]]), torch.rand(1, 3, 16, 16, generator=make_generator(0))
    assert torch.equal(model(tokens, images), same(tokens, images))
    assert not torch.allclose(model(tokens, images), other(tokens, images))


def test_what_is_learned_from_scenes() -> None:
    "Questions and captions, each with its image; the evaluation asks about combinations that training never shows."
    data = prepare_scenes(small_config(), n_train=300, n_val=40)
    assert (len(data.train), len(data.val)) == (300, 40)
    assert not ((data.train.scenes.colour == data.train.scenes.shape) & (data.train.scenes.shape >= 0)).any()
    image_token_id = 339
    for dataset, i in ((data.train, 0), (data.train, 299), (data.val, 7)):
        inputs, targets = dataset[i]
        assert (inputs["tokens"] == image_token_id).sum() == 1 and inputs["images"].shape == (3, 16, 16)
        given = int((inputs["tokens"] == image_token_id).nonzero())
        assert (targets[:given] == IGNORE_INDEX).all() and (targets[given:] != IGNORE_INDEX).all()
        assert targets[-1] == data.tokenizer.eos_id
        scene = Scenes(*(part[i:i + 1] for part in dataset.scenes))
        assert torch.equal(inputs["images"], ((render(scene, 8) - 0.8) / 0.3)[0])
    inputs, targets = data.train.collate([data.train[i] for i in (0, 299, 5)])
    assert inputs["tokens"].shape == targets.shape and inputs["images"].shape == (3, 3, 16, 16)
    assert torch.equal(inputs["images"][1], data.train[299][0]["images"])
    assert inputs["attention_mask"].sum(1).tolist() == [len(data.train[i][1]) for i in (0, 299, 5)]
    with pytest.raises(IndexError, match="example 40 of 40"):
        data.val[40]


def test_the_seed_decides_the_scenes() -> None:
    first, again, other = (prepare_scenes(small_config("training", seed=seed), n_train=60, n_val=10) for seed in (1, 1, 2))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("changes", [{"fusion": fusion} for fusion in FUSIONS] + [
    {"fusion": "gated", "projector": "resampler", "cross_every": 2}, {"projector": "linear", "keep_cls": True},
    {"vision_feature_layer": -2}])
def test_trained_saved_and_read(changes: dict, tmp_path: Path) -> None:
    "The loss falls; what is read from the disk is what was trained; stopping in the middle changes nothing."
    config = small_config(**changes)
    trainer = make_trainer(config, tmp_path / "run", progress=False)
    history = trainer.train()
    assert history[-1]["loss"] < history[1]["loss"]
    assert {"val_loss", "val_perplexity", "val_accuracy"} <= history[-1].keys()
    model, read, _ = load_checkpoint(tmp_path / "run")
    assert read == config and isinstance(model, VisionLanguageModel)
    inputs, _ = trainer.train_data.collate([trainer.train_data[i] for i in range(4)])
    with torch.no_grad():
        assert torch.equal(model(**inputs), trainer.model(**inputs))
    half = small_config(**changes).model_copy(update={"training": config.training.model_copy(update={"max_steps": 3})})
    make_trainer(half, tmp_path / "half", progress=False).train()
    resumed = resume_trainer(tmp_path / "half", config, progress=False)
    assert resumed.train() == history
    for (name, p), q in zip(trainer.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_the_trainer_computes_the_loss_of_the_answers(tmp_path: Path) -> None:
    "In parts or whole, with blocks computed again or not: as by hand on the model's logits."
    found = []
    for changes in ({}, {"batch_size": 4, "gradient_accumulation": 2}, {"gradient_checkpointing": True}):
        trainer = make_trainer(small_config("training", **changes), tmp_path / str(len(found)), progress=False)
        assert trainer.model.language_model.gradient_checkpointing == ("gradient_checkpointing" in changes)
        batch = [trainer.train_data.collate([trainer.train_data[i] for i in range(8)[part]]) for part in
                 ((slice(0, 4), slice(4, 8)) if "batch_size" in changes else (slice(0, 8),))]
        with torch.no_grad():
            parts = [cross_entropy_loss(trainer.model(**inputs), targets, "sum") for inputs, targets in batch]
            expected = sum(parts) / sum((targets != IGNORE_INDEX).sum() for _, targets in batch)
        trainer.objective.train()
        entry = trainer.train_step(batch)
        assert entry["loss"] == pytest.approx(float(expected), rel=1e-5)
        found.append((entry["loss"], entry["grad_norm"]))
    assert found[1] == pytest.approx(found[0], rel=1e-4) and found[2] == pytest.approx(found[0], rel=1e-4)


def test_the_packaged_configuration() -> None:
    "It is of a model that sees, and its text, with the vectors of an image, fits in."
    config = load_config("vision_language")
    assert config.kind == "vision_language" and load_config("tiny").kind == "language"
    data = prepare_scenes(config, n_train=6000, n_val=10)
    n_vectors = build_model(config).get_image_features(data.train[0][0]["images"][None]).shape[1]
    assert max(len(inputs) for inputs, _ in data.train.texts) - 1 + n_vectors <= config.model.max_seq_len


def test_asked_from_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "geminiq train, then generate about a PNG, with a question or without; and what cannot be asked."
    monkeypatch.chdir(tmp_path)
    save_config(small_config(), "small.yaml")
    runner = CliRunner()
    trained = runner.invoke(app, ["train", "--config", "small.yaml", "--output", "run"])
    assert trained.exit_code == 0, trained.output
    assert "perplexity" in trained.output and "accuracy" in trained.output
    scene = sample_scenes(1, make_generator(3))
    imsave("scene.png", render(scene, 20)[0].permute(1, 2, 0).numpy())
    asked = ["generate", "--checkpoint", "run", "--image", "scene.png", "--temperature", "0", "--max_tokens", "5"]
    model, config, tokenizer = load_checkpoint("run")
    for prompt in ("How many rings are there?", ""):
        answered = runner.invoke(app, [*asked, "--prompt", prompt])
        assert answered.exit_code == 0, answered.output
        expected = generate_text_from_images(model, tokenizer, prompt, load_image("scene.png", config.vision), 5)
        assert answered.stdout.strip() == printable(expected)
    Path("text.txt").write_text("\n\n".join(f"The {a} {b} sees the {a + b}." for a in range(40) for b in range(40)))
    text = ["train", "--output", "text", "--train_path", "text.txt", "--max_steps", "1", "--batch_size", "2"]
    for key in ("model.vocab_size=300", "model.d_model=12", "model.n_layers=1", "model.n_heads=2", "model.max_seq_len=16"):
        text += ["--set", key]
    trained = runner.invoke(app, text)
    assert trained.exit_code == 0, trained.output
    for wrong, message in ((["--checkpoint", "run", "--image", "none.png"], "none.png cannot be read as an image"),
                           (["--checkpoint", "run", "--image", "small.yaml"], "small.yaml cannot be read as an image"),
                           (["--checkpoint", "run", "--prompt", "The"], "holds a model that sees"),
                           (["--checkpoint", "text", "--image", "scene.png"], "holds a model of text"),
                           (["--checkpoint", "run", "--image", "scene.png", "--stop", "."], "--image goes without --stop")):
        refused = runner.invoke(app, ["generate", *wrong])
        assert refused.exit_code == 2 and message in refused.output, refused.output


def test_images_in_files(tmp_path: Path) -> None:
    "Of the wanted size they keep their pixels; grey, with an alpha channel, larger or in colour for one channel."
    vision = small_config().vision
    pixels = torch.randint(256, (16, 16, 4), generator=make_generator(0), dtype=torch.uint8).numpy()

    def read(content: object, **changes: object) -> Tensor:
        imsave(tmp_path / "image.png", content)
        return load_image(tmp_path / "image.png", vision.model_copy(update=changes)) * vision.image_std + vision.image_mean

    exact = torch.from_numpy(pixels.astype("float32") / 255).permute(2, 0, 1)
    opaque = pixels.copy()
    opaque[..., 3] = 255
    assert (read(opaque)[0] - exact[:3]).abs().max() < 1e-6
    assert (read(pixels)[0] - (exact[:3] * exact[3] + 1 - exact[3])).abs().max() < 1e-6
    assert (read(opaque, num_channels=1)[0] - exact[:3].mean(0)).abs().max() < 1e-6
    assert (read(opaque.repeat(3, 0).repeat(3, 1))[0] - exact[:3]).abs().max() < 0.5    # smooth, about the same
    assert read(opaque, image_size=(8, 24)).shape == (1, 3, 8, 24)


@pytest.mark.parametrize(("values", "message"), [
    (SMALL | {"vision": None}, "the configuration has no section vision"),
    (SMALL | {"vision": SMALL["vision"] | {"image_size": 15, "patch_size": 5}}, "image_size 15 with num_channels 3: scenes"),
    (SMALL | {"vision": SMALL["vision"] | {"num_channels": 1}}, "image_size 16 with num_channels 1: scenes"),
    (SMALL | {"vision": SMALL["vision"] | {"fusion": "gate"}}, "vision.fusion 'gate' is unknown: did you mean gated"),
    (SMALL | {"vision": SMALL["vision"] | {"projector": "conv"}}, "vision.projector 'conv' is unknown: known are linear, mlp"),
    (SMALL | {"vision": SMALL["vision"] | {"patchsize": 8}}, "vision.patchsize is unknown, did you mean patch_size"),
])
def test_mistakes_in_a_configuration(values: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        make_trainer(make_config(values), tmp_path / "run", progress=False).train()


# The packaged vision encoders


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("name", "millions", "shape"), [
    ("vit_base", 85.8, (197, 768)), ("vit_tiny", 5.5, (197, 192)), ("clip_vit_large", 303.5, (577, 1024))])
def test_vision_presets(name: str, millions: float, shape: tuple[int, int]) -> None:
    config = load_vision_config(name)
    with torch.device("meta"):   # shapes only
        encoder = VisionEncoder(config, torch.Generator())
        images = torch.zeros(1, 3, config.image_size, config.image_size)
    assert encoder(images).shape == (1, *shape)
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 1) == millions


def test_the_presets_of_language_models_are_not_disturbed() -> None:
    assert preset_names(VISION_PRESETS) == ["clip_vit_large", "vit_base", "vit_tiny"]
    assert not set(preset_names(VISION_PRESETS)) & set(preset_names()) and "tiny" in preset_names()


@pytest.mark.parametrize(("text", "message"), [
    ("patch_sise: 4", "patch_sise is unknown, did you mean patch_size"),
    ("wings: 2", "wings is unknown, known are image_size, "),
    ("d_model: -1\nn_heads: many", "d_model is -1, it should be greater than 0; n_heads is 'many', it should be a valid integer"),
    ("image_size: huge", "image_size is 'huge', it should be a valid "),
    ("activation: mish", "activation 'mish' is unknown: known are relu, gelu, gelu_tanh, silu, quick_gelu"),
    ("[1, 2]", r"has image_size, .*, not \[1, 2\]"),
    ("a: [", "is not valid YAML"),
])
def test_mistakes_in_a_vision_configuration(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "eye.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=rf"eye\.yaml.*{message}"):
        load_vision_config(file)


def test_a_vision_configuration_of_your_own(tmp_path: Path) -> None:
    file = tmp_path / "eye.yaml"
    file.write_text("image_size: [8, 12]\npatch_size: 4\n")
    assert load_vision_config(file) == load_vision_config(str(file)) == VisionConfig(image_size=(8, 12), patch_size=4)
    with pytest.raises(UserError, match=r"no configuration 'vit_huge': .* did you mean the preset vit_base"):
        load_vision_config("vit_huge")


def test_the_package_carries_its_configurations(tmp_path: Path) -> None:
    "As setuptools copies it into a wheel."
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.yaml")} == \
        {path.relative_to(ROOT) for path in (ROOT / "geminiq").rglob("*.yaml")}
    assert tmp_path / "geminiq/configs/vision/vit_base.yaml" in set(tmp_path.rglob("*.yaml"))


@pytest.mark.parametrize("key", ["val_path", "tokenizer_path"])
def test_scenes_refuse_what_is_for_texts(key: str) -> None:
    config = load_config("vision_language", [f"data.{key}=somewhere"])
    with pytest.raises(UserError, match=rf"data\.{key} is for texts"):
        prepare_scenes(config)
