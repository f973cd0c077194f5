"""Published models that see: ViT and LLaVA of `transformers`, built in memory, written, read, compared."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from geminiq.generation.beam_search import beam_search
from geminiq.generation.cache import KVCache
from geminiq.generation.generate import left_pad
from geminiq.generation.sampling import Sampling
from geminiq.models.multimodal import ImagePrompt, expand_image_tokens, generate_from_images
from geminiq.models.pretrained import load_pretrained, save_pretrained
from geminiq.models.vision import VisionEncoder
from geminiq.training.losses import cross_entropy_loss
from geminiq.training.optimizer import configure_optimizer
from geminiq.utils.device import UserError, make_generator
from helpers import ALONE, ODD, SHAPE, VOCAB, Case, Pair, gradients_of, published, relative, scatter_weights

pytestmark = pytest.mark.usefixtures("exact")

IMAGE, SIDE = VOCAB - 1, 12
EYE = {"image_size": SIDE, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4,
       "intermediate_size": 24}


def llava(what: str, text: dict, **more: object) -> Case:
    "LLaVA with a LLaMA."
    return Case("LLaVA", what, {"vision_config": EYE, "text_config": SHAPE | text, "image_token_index": IMAGE, **more})


CASES = [
    Case("ViT", "five classes", EYE | {"num_labels": 5}),
    Case("ViT", "one channel, three heads", EYE | {"hidden_size": 18, "num_attention_heads": 3, "num_channels": 1}),
    Case("ViT", "quick GELU, another epsilon", EYE | {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-3, "patch_size": 6}),
    Case("ViT without a head", "hidden_states", EYE),
    llava("the layer before the last, without CLS", {}),
    llava("the last layer, with CLS, one key, tied", ALONE | {"tie_word_embeddings": True}, vision_feature_layer=-1,
          vision_feature_select_strategy="full", tie_word_embeddings=True),
    llava("the first layer, odd, biases", ODD | {"attention_bias": True}, vision_feature_layer=1),
]


def reference(case: Case) -> transformers.PreTrainedModel:
    "A model of `transformers` with weights of a size at which every one counts."
    torch.manual_seed(0)
    if case.family == "LLaVA":
        settings = case.settings | {"vision_config": transformers.CLIPVisionConfig(**case.settings["vision_config"]),
                                    "text_config": transformers.LlamaConfig(**case.settings["text_config"])}
        model = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(**settings))
    else:
        kind = transformers.ViTForImageClassification if case.family == "ViT" else transformers.ViTModel
        model = kind(transformers.ViTConfig(**case.settings))
    return scatter_weights(model.double().eval(), 0.3)


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    "Each of them."
    return request.param


@pytest.fixture
def pair(case: Case, tmp_path: Path) -> Pair:
    "The reference, and what we make of its folder."
    return published(reference(case), tmp_path / "published")


def images(n: int, channels: int = 3) -> Tensor:   # (n, C, side, side)
    "Noise to look at."
    return torch.randn(n, channels, SIDE, SIDE, dtype=torch.float64, generator=make_generator(1))


ROWS = [[1, 2, 3, IMAGE, 4], [5, 6, 8], [IMAGE, 2, 9, IMAGE, 3, 11, 12, 13]]   # one picture, none, two


def seen(case: Case, pair: Pair) -> tuple[Tensor, Tensor]:
    "What both predict; of texts with pictures, at their words."
    if case.family != "LLaVA":
        shown = images(2, case.settings.get("num_channels", 3)).to(next(pair.ours.parameters()).dtype)
        found = pair.theirs(shown)
        return pair.ours(shown), found.logits if case.family == "ViT" else found.last_hidden_state
    (tokens, mask), shown = left_pad(ROWS), images(3).to(next(pair.ours.parameters()).dtype)
    row = expand_image_tokens(tokens, IMAGE, pair.ours.get_image_features(shown[:1]).shape[1], mask)
    positions = (row.attention_mask.cumsum(-1) - 1).clamp(min=0)
    theirs = pair.theirs(input_ids=row.tokens, pixel_values=shown, attention_mask=row.attention_mask.long(),
                         position_ids=positions).logits
    places = row.places[..., None].expand(-1, -1, theirs.shape[-1])
    return pair.ours(tokens, shown, mask)[mask], theirs.gather(1, places)[mask]


@torch.no_grad()
def test_logits(case: Case, pair: Pair) -> None:
    assert relative(*seen(case, pair)) < 1e-9


@torch.no_grad()
def test_float32(case: Case, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    "As it is used, with nothing lifted."
    monkeypatch.undo()
    assert relative(*seen(case, Pair(reference(case).float(), pair.ours.float()))) < 1e-5


def test_gradients(case: Case, pair: Pair, tmp_path: Path) -> None:
    for answers in seen(case, pair):
        if case.family == "LLaVA":
            targets = torch.randint(IMAGE, answers.shape[:1], generator=make_generator(2))
            cross_entropy_loss(answers, targets).backward()
        else:
            F.mse_loss(answers, torch.ones_like(answers)).backward()
    theirs = gradients_of(pair.theirs, tmp_path / "gradients")
    largest = max(p.abs().max() for p in theirs.values())
    compared = 0
    for name, p in pair.ours.named_parameters():
        found = torch.zeros_like(p) if p.grad is None else p.grad   # of layers behind the one that is read
        assert (found - theirs[name]).abs().max() <= 1e-9 * largest, name
        compared += p.grad is not None
    assert compared > 30


only_llava = pytest.mark.parametrize("case", [case for case in CASES if case.family == "LLaVA"],
                                     ids=str)


def asked(pair: Pair, tokens: Tensor, mask: Tensor, shown: Tensor) -> dict[str, Tensor]:
    "What to tell theirs, where an image token stands as often as a picture has vectors."
    row = expand_image_tokens(tokens, IMAGE, pair.ours.get_image_features(shown[:1]).shape[1], mask)
    return {"input_ids": row.tokens, "attention_mask": row.attention_mask.long(), "pixel_values": shown}


@torch.no_grad()
@only_llava
def test_cached_steps(pair: Pair) -> None:
    "The pictures in the cache, then words, one by one or several; filled up at the left."
    (tokens, mask), shown = left_pad(ROWS), images(3)
    told = asked(pair, tokens, mask, shown)
    after = torch.randint(IMAGE, (3, 6), generator=make_generator(3))
    whole = torch.cat([told["input_ids"], after], 1)
    seen = torch.cat([told["attention_mask"].bool(), torch.ones_like(after, dtype=torch.bool)], 1)
    positions = (seen.cumsum(-1) - 1).clamp(min=0)
    theirs = pair.theirs(input_ids=whole, attention_mask=seen.long(), pixel_values=shown, position_ids=positions).logits
    prompt = ImagePrompt(pair.ours, tokens, shown, mask)
    cache, start, ours = KVCache(prompt), 0, []
    for end in (told["input_ids"].shape[1], *range(whole.shape[1] - 5, whole.shape[1] - 2), whole.shape[1]):
        ours.append(pair.ours.language_model.logits(prompt.hidden_states(whole[:, start:end], seen[:, :end], cache)))
        start = end
    assert relative(torch.cat(ours, 1)[seen], theirs[seen]) < 1e-9


@torch.no_grad()
@only_llava
def test_padding_on_the_right(pair: Pair) -> None:
    (tokens, mask), shown = left_pad(ROWS), images(3)
    told = asked(pair, tokens, mask, shown)
    theirs = pair.theirs(**told, position_ids=(told["attention_mask"].cumsum(-1) - 1).clamp(min=0)).logits
    right = torch.stack([torch.cat([row[row_mask], row[~row_mask]]) for row, row_mask in zip(tokens, mask, strict=True)])
    ours = pair.ours(right, shown, mask.flip(1))[mask.flip(1)]
    row = expand_image_tokens(tokens, IMAGE, pair.ours.get_image_features(shown[:1]).shape[1], mask)
    places = row.places[..., None].expand(-1, -1, theirs.shape[-1])
    assert relative(ours, theirs.gather(1, places)[mask]) < 1e-9


@torch.no_grad()
@only_llava
def test_image_tokens_as_a_processor_writes_them(pair: Pair) -> None:
    "One for each vector of an image, not one for each image."
    (tokens, mask), shown = left_pad(ROWS), images(3)
    told = asked(pair, tokens, mask, shown)
    row, seen_mask = told["input_ids"], told["attention_mask"].bool()
    assert (row == IMAGE).sum() == 3 * pair.ours.get_image_features(shown[:1]).shape[1] > 3
    theirs = pair.theirs(**told, position_ids=(told["attention_mask"].cumsum(-1) - 1).clamp(min=0)).logits
    assert relative(pair.ours(row, shown, seen_mask)[seen_mask], theirs[seen_mask]) < 1e-9
    written = [generate_from_images(pair.ours, *prompt, sampling=Sampling(temperature=0))
               for prompt in ((tokens, shown, 8, mask), (row, shown, 8, seen_mask))]
    assert torch.equal(*written)
    with pytest.raises(UserError, match="give one for each, or "):
        pair.ours(row[:, 1:].masked_fill(row[:, 1:] != IMAGE, 1)[:, -3:], shown, None)


@torch.no_grad()
@only_llava
def test_greedy_and_beam_texts(pair: Pair) -> None:
    (tokens, mask), shown = left_pad(ROWS), images(3)
    told = asked(pair, tokens, mask, shown)
    how = {"do_sample": False, "max_new_tokens": 10, "pad_token_id": 0, "suppress_tokens": [IMAGE]}
    theirs = pair.theirs.generate(**told, **how)[:, told["input_ids"].shape[1]:]
    assert torch.equal(generate_from_images(pair.ours, tokens, shown, 10, mask, sampling=Sampling(temperature=0)), theirs)
    theirs = pair.theirs.generate(**told, **how, num_beams=3, renormalize_logits=True)[:, told["input_ids"].shape[1]:]
    prompt = ImagePrompt(pair.ours, tokens, shown, mask)
    found = beam_search(prompt, prompt.tokens, 10, num_beams=3, attention_mask=prompt.attention_mask)
    assert [text.tokens for text, in found] == theirs.tolist()


@pytest.mark.parametrize("parts", [1, 3])
@only_llava
def test_eight_training_steps(pair: Pair, parts: int) -> None:
    "The same losses, whether a batch comes whole or row by row."
    tokens, shown = torch.tensor([[1, 2, IMAGE, 4, 5], [IMAGE, 6, 8, 9, 3], [7, IMAGE, 9, 3, 11]]), images(3)
    targets = torch.tensor([[-100, -100, 4, 5, 8], [6, 8, 9, 3, 1], [-100, 9, 3, 11, 2]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    row = expand_image_tokens(tokens, IMAGE, pair.ours.get_image_features(shown[:1]).shape[1])
    told, places = {"input_ids": row.tokens, "pixel_values": shown}, row.places
    optimizer = configure_optimizer(pair.ours, 3e-3)
    groups = [{"params": [p for p in pair.theirs.parameters() if (p.squeeze().ndim >= 2) == decays], "weight_decay": 0.1 * decays}
              for decays in (True, False)]
    peer, n = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95)), (targets != -100).sum()
    for _ in range(8):
        loss = 0.0
        for rows in torch.arange(3).chunk(parts):
            part = cross_entropy_loss(pair.ours(tokens[rows], shown[rows], mask[rows]), targets[rows], "sum") / n
            part.backward()
            loss += part.item()
        logits = pair.theirs(**told).logits
        expected = cross_entropy_loss(logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1])), targets)
        expected.backward()
        assert loss == pytest.approx(expected.item(), rel=1e-6)
        for stepped in (optimizer, peer):
            stepped.step()
            stepped.zero_grad()


def test_llava_as_it_was_published(tmp_path: Path) -> None:
    "A longer name for the eye, and numbers of positions among the weights."
    case = CASES[4]
    theirs = reference(case)
    theirs.save_pretrained(tmp_path / "published")
    file = tmp_path / "published" / "model.safetensors"
    weights = {name.replace("vision_tower.", "vision_tower.vision_model."): weight for name, weight in load_file(file).items()}
    save_file(weights | {"vision_tower.vision_model.embeddings.position_ids": torch.arange(10)[None]}, file)
    with torch.no_grad():
        assert relative(*seen(case, Pair(theirs, load_pretrained(tmp_path / "published").model.eval()))) < 1e-9


def test_written_back(case: Case, pair: Pair, tmp_path: Path) -> None:
    "What was read is written as it was, and transformers reads it."
    folder = save_pretrained(tmp_path / "back", pair.ours)
    theirs, told = type(pair.theirs).from_pretrained(folder, output_loading_info=True)
    assert not any(value for key, value in told.items() if not str(value).startswith("{'pooler")), told
    again = load_pretrained(folder).model
    assert all(map(torch.equal, again.parameters(), pair.ours.parameters()))
    with torch.no_grad():
        assert relative(*seen(case, Pair(theirs.double().eval(), again))) < 1e-9


def test_what_no_format_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot express embedding_norm True with patch_bias True"):
        save_pretrained(tmp_path / "x", VisionEncoder(embedding_norm=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("settings", "message"), [
    ({"vision_feature_select_strategy": "middle"}, 'vision_feature_select_strategy is "middle"'),
    ({"vision_feature_layer": [-2, -1]}, r"vision_feature_layer is \[-2, -1\]"),
    ({"projector_hidden_act": "relu"}, 'projector_hidden_act is "relu"'),
    ({"text_config": {"model_type": "mamba"}}, 'text_config: model_type is "mamba": only llama and mistral are supported'),
    ({"vision_config": {"model_type": "siglip"}}, 'vision_config: model_type is "siglip": only "clip_vision_model" is supported'),
])
def test_what_we_cannot_build_is_refused(settings: dict, message: str, tmp_path: Path) -> None:
    theirs = reference(CASES[4])
    theirs.save_pretrained(tmp_path)

    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | settings))
    with pytest.raises(UserError, match=message):
        load_pretrained(tmp_path)
