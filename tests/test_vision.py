"""The vision encoder: against one matrix product, against itself shuffled, and against ViT and CLIP of transformers."""

import re
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedModel, ViTConfig, ViTModel
from transformers.models.vit import modeling_vit

import helpers
from geminiq.models.attention import record_attention
from geminiq.models.vision import (
    ImageClassifier,
    PatchEmbedding,
    VisionConfig,
    VisionEncoder,
    load_digits,
    resize_positions,
)
from geminiq.utils.device import UserError
from helpers import assert_generator_decides, random, scatter_weights

TOLERANCE = 1e-12   # relative to the largest number
agree = partial(helpers.agree, tolerance=TOLERANCE)
SIDE, PATCH, CHANNELS, D_MODEL, D_FF, LAYERS, HEADS = 12, 3, 2, 16, 24, 3, 4
OF_VIT = {"embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "position_embeddings",
          "embeddings.patch_embeddings.projection": "patches.projection", "layers": "blocks",
          "layernorm_before": "attention_norm", "layernorm_after": "feed_forward_norm", "layernorm": "norm",
          "attention.q_proj": "attention.query", "attention.k_proj": "attention.key", "attention.v_proj": "attention.value",
          "attention.o_proj": "attention.output", "mlp.fc1": "feed_forward.up", "mlp.fc2": "feed_forward.down"}
OF_CLIP = {"embeddings.class_embedding": "cls_token", "embeddings.position_embedding.weight": "position_embeddings",
           "embeddings.patch_embedding": "patches.projection", "pre_layrnorm": "embedding_norm", "encoder.layers": "blocks",
           "layer_norm1": "attention_norm", "layer_norm2": "feed_forward_norm", "post_layernorm": "norm",
           "self_attn.q_proj": "attention.query", "self_attn.k_proj": "attention.key", "self_attn.v_proj": "attention.value",
           "self_attn.out_proj": "attention.output", "mlp.fc1": "feed_forward.up", "mlp.fc2": "feed_forward.down"}


@settings(deadline=None)
@given(size=st.integers(1, 5), rows=st.integers(1, 4), columns=st.integers(1, 4), channels=st.integers(1, 4),
       width=st.integers(1, 9), batch=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_patches_are_unfold_and_one_matrix(size: int, rows: int, columns: int, channels: int, width: int, batch: int,
                                           seed: int) -> None:
    layer = PatchEmbedding((rows * size, columns * size), size, channels, width).double()
    images = random(batch, channels, rows * size, columns * size, seed=seed)
    patches = F.unfold(images, size, stride=size).transpose(1, 2)   # (B, n, C·p·p)
    assert layer.grid == (rows, columns)
    agree(layer(images), patches @ layer.projection.weight.flatten(1).T + layer.projection.bias)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 4), columns=st.integers(1, 4), size=st.integers(1, 3), seed=st.integers(0, 2**31), data=st.data())
def test_patches_shuffled_with_their_positions(rows: int, columns: int, size: int, seed: int, data: st.DataObject) -> None:
    "CLS does not notice; the patches come out in the new order."
    order = torch.tensor(data.draw(st.permutations(range(rows * columns))))
    image_size = (rows * size, columns * size)
    model = VisionEncoder(image_size=image_size, patch_size=size, num_channels=2, d_model=8).double()
    images = random(2, 2, *image_size, seed=seed)
    puzzle = F.fold(F.unfold(images, size, stride=size)[..., order], image_size, size, stride=size)
    with torch.no_grad():
        before = model(images)
        model.position_embeddings[1:] = model.position_embeddings[1:][order]
        after = model(puzzle)
    agree(after[:, 0], before[:, 0])
    agree(after[:, 1:], before[:, 1:][:, order])


@given(rows=st.integers(1, 5), columns=st.integers(1, 5), new_rows=st.integers(1, 9), new_columns=st.integers(1, 9),
       seed=st.integers(0, 2**31))
def test_resized_positions(rows: int, columns: int, new_rows: int, new_columns: int, seed: int) -> None:
    "The same size changes nothing, CLS never changes, and what is constant stays constant."
    position = random(1 + rows * columns, 3, seed=seed)
    assert torch.equal(resize_positions(position, (rows, columns), (rows, columns)), position)
    resized = resize_positions(position, (rows, columns), (new_rows, new_columns))
    assert resized.shape == (1 + new_rows * new_columns, 3)
    assert torch.equal(resized[0], position[0])
    constant = position[:1].expand_as(position)
    agree(resize_positions(constant, (rows, columns), (new_rows, new_columns)), position[:1].expand_as(resized))


def rename(name: str, parts: dict[str, str]) -> str:
    "A name with each of its parts replaced."
    return re.sub("|".join(rf"\b{re.escape(part)}\b" for part in parts), lambda match: parts[match[0]], name)


def copied(reference: PreTrainedModel, parts: dict[str, str], **change: object) -> tuple[VisionEncoder, PreTrainedModel]:
    "An encoder with the random weights of a reference, and the reference, in float64."
    reference = scatter_weights(reference.double().eval())
    config = VisionConfig(image_size=SIDE, patch_size=PATCH, num_channels=CHANNELS, d_model=D_MODEL, n_layers=LAYERS,
                          n_heads=HEADS, d_ff=D_FF, **change)
    model = VisionEncoder(config).double().eval()
    state = {rename(name, parts): p for name, p in reference.named_parameters()}
    state.setdefault("patches.projection.bias", torch.zeros(D_MODEL))   # CLIP has none
    model.load_state_dict({name: p.reshape(model.get_parameter(name).shape) for name, p in state.items()})
    return model, reference


SIZES = {"image_size": SIDE, "patch_size": PATCH, "num_channels": CHANNELS, "hidden_size": D_MODEL, "num_hidden_layers": LAYERS,
         "num_attention_heads": HEADS, "intermediate_size": D_FF}


def vit(attention: str = "sdpa") -> tuple[VisionEncoder, ViTModel]:
    "ViT: GELU, and an epsilon of 1e-12."
    config = ViTConfig(**SIZES, attn_implementation=attention)
    return copied(ViTModel(config, add_pooling_layer=False), OF_VIT, norm_eps=config.layer_norm_eps)


def clip() -> tuple[VisionEncoder, CLIPVisionModel]:
    "CLIP: a norm in front of the blocks, another GELU, patches without a bias."
    config = CLIPVisionConfig(**SIZES, attn_implementation="sdpa")
    return copied(CLIPVisionModel(config), OF_CLIP, norm_eps=config.layer_norm_eps, activation="quick_gelu",
                  embedding_norm=True)


@torch.no_grad()
@pytest.mark.parametrize("pair", [vit, clip])
@pytest.mark.parametrize(("height", "width"), [(SIDE, SIDE), (18, 18), (6, 15), (3, 48)])
def test_every_layer(pair: Callable, height: int, width: int) -> None:
    "The stream after each layer, in images of the trained size and of others: (3, 48) has as many patches as (12, 12)."
    model, reference = pair()
    images = random(3, CHANNELS, height, width)
    theirs = reference(images, output_hidden_states=True, interpolate_pos_encoding=True)
    assert len(theirs.hidden_states) == LAYERS + 1
    for layer, hidden in enumerate(theirs.hidden_states):
        agree(model.hidden_states(images, layer), hidden)
        agree(model.hidden_states(images, layer - LAYERS - 1), hidden)


@torch.no_grad()
def test_output() -> None:
    "After the last norm: all positions of ViT, and CLS of CLIP, which norms no other."
    images = random(3, CHANNELS, SIDE, SIDE)
    model, reference = vit()
    agree(model(images), reference(images).last_hidden_state)
    model, reference = clip()
    agree(model(images)[:, 0], reference(images).pooler_output)


@torch.no_grad()
def test_attention_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    "The reference takes the softmax in float32; here it is made to do so in float64."
    softmax = F.softmax
    monkeypatch.setattr(modeling_vit.nn.functional, "softmax", lambda x, dim, dtype: softmax(x, dim))
    model, reference = vit("eager")
    images = random(2, CHANNELS, SIDE, SIDE)
    with record_attention(model) as weights:
        output = model(images)
    theirs = reference(images, output_attentions=True)
    agree(torch.stack(weights), torch.stack(theirs.attentions))
    agree(output, theirs.last_hidden_state)


def test_gradients() -> None:
    "The gradient of ViT, number by number."
    model, reference = vit()
    images, direction = random(2, CHANNELS, SIDE, SIDE), random(2, 1 + (SIDE // PATCH) ** 2, D_MODEL, seed=1)
    (model(images) * direction).sum().backward()
    (reference(images).last_hidden_state * direction).sum().backward()
    ours = {name: p.grad for name, p in model.named_parameters()}
    theirs = {rename(name, OF_VIT): p.grad for name, p in reference.named_parameters()}
    assert ours.keys() == theirs.keys()
    largest = max(gradient.abs().max() for gradient in theirs.values())
    for name, gradient in ours.items():
        assert (gradient - theirs[name].reshape(gradient.shape)).abs().max() <= TOLERANCE * largest, name


@pytest.mark.parametrize("image_size", [8, (4, 8)])
@pytest.mark.parametrize("embedding_norm", [False, True])
def test_gradient_flows_everywhere(image_size: int | tuple[int, int], embedding_norm: bool) -> None:
    "Into every parameter, also through positions for another size; a bias of keys has none, softmax ignores it."
    model = ImageClassifier(5, image_size=image_size, num_channels=2, embedding_norm=embedding_norm).double()
    torch.nn.init.ones_(model.head.weight[0])  # at zero, as it starts, nothing passes the head
    for shape in ((8, 8), (4, 8)):
        model.zero_grad()
        F.cross_entropy(model(random(3, 2, *shape)), torch.tensor([0, 1, 2])).backward()
        for name, p in model.named_parameters():
            rounding = 1e-14 if name.endswith("key.bias") else 0.0
            assert (p.grad.abs().max() <= rounding) == ("key.bias" in name), name


def test_training_and_evaluation_differ_by_dropout_alone() -> None:
    images, x = random(2, 1, 8, 8), random(2, 5, 48)
    model = VisionEncoder(dropout=0.5).double()
    assert not torch.equal(model.embed(images), model.embed(images))
    assert not torch.equal(model.blocks[0](x), model.blocks[0](x))
    assert torch.equal(model.eval()(images), model(images))


def test_the_generator_alone_decides_the_first_weights() -> None:
    assert_generator_decides(lambda generator: ImageClassifier(10, generator=generator))


@pytest.mark.parametrize(("image_size", "patch_size"), [(10, 4), ((8, 10), 4), ((10, 8), 4), (2, 4), (0, 2), (8, 0), (8, -2)])
def test_sizes_that_do_not_fit(image_size: int | tuple[int, int], patch_size: int) -> None:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    with pytest.raises(UserError, match=rf"{height} × {width} .* {patch_size} × {patch_size}: resize .* or change patch_size"):
        PatchEmbedding(image_size, patch_size, 1, 8)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (2, 1, 8), (2, 3, 8, 8), (2, 8, 8, 1), (2, 1, 8, 8, 8)])
def test_shapes_that_are_no_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=rf"{re.escape(str(shape))} are not \(B, 1, height, width\)"):
        VisionEncoder()(torch.zeros(shape))


@pytest.mark.parametrize("side", [0, 1, 7, 9])
def test_images_that_cannot_be_cut(side: int) -> None:
    with pytest.raises(UserError, match=f"{side} × 8 cannot be cut"):
        VisionEncoder()(torch.zeros(1, 1, side, 8))


@pytest.mark.parametrize("layer", [-4, 3])
def test_layers_that_do_not_exist(layer: int) -> None:
    with pytest.raises(UserError, match=f"layer {layer} is outside -3 … 2"):
        VisionEncoder().hidden_states(torch.zeros(1, 1, 8, 8), layer)


def test_heads_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="48 is not a multiple of n_heads 5"):
        VisionEncoder(n_heads=5)


def test_digits() -> None:
    "Every digit is in one part, the labels go with their images, and only the seed decides."
    digits = datasets.load_digits()
    labels = {image.astype("float32").tobytes(): label for image, label in zip(digits.images, digits.target, strict=True)}
    train, held_out = load_digits(7)
    found = [(image.numpy().tobytes(), label) for part in (train, held_out)
             for image, label in zip(part.images * 16, part.labels.tolist(), strict=True)]
    assert len(found) == len(labels) == 1797
    assert dict(found) == labels
    assert all(torch.equal(a, b) for a, b in zip(held_out, load_digits(7)[1], strict=True))


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r"pip install \"geminiq\[course\]\""):
        load_digits()


def test_built_by_a_configuration_or_by_its_keys() -> None:
    "The same encoder; given both, the keys change the configuration; a wrong key is answered with the right one."
    keys = {"image_size": (6, 12), "patch_size": 3, "d_model": 8, "n_layers": 1, "n_heads": 2}
    by_keys, by_config = VisionEncoder(**keys), VisionEncoder(VisionConfig(**keys))
    assert by_keys.config == by_config.config == VisionConfig(**keys)
    assert all(torch.equal(a, b) for a, b in zip(by_keys.parameters(), by_config.parameters(), strict=True))
    config = VisionConfig(**keys)
    assert VisionEncoder(config, n_layers=2).config == VisionConfig(**(keys | {"n_layers": 2}))
    assert config.n_layers == 1
    assert ImageClassifier(3, **keys)(torch.zeros(2, 1, 6, 12)).shape == (2, 3)
    for build in (VisionEncoder, lambda **keys: ImageClassifier(3, **keys)):
        with pytest.raises(UserError, match="VisionEncoder: patch_sise is unknown, did you mean patch_size"):
            build(patch_sise=2)
        with pytest.raises(UserError, match="VisionEncoder: d_model is 0, it should be greater than 0"):
            build(d_model=0)
