"""Right solutions of the exercises on attention and on tokens, in other styles than the museum's: none may be refused."""

import codecs
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import reduce
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from geminiq.training.optimizer import configure_optimizer

RIGHT: list[tuple[str, Callable]] = []


def right(exercise: str) -> Callable:
    "A decorator: this solution is right."
    def enter(solution: Callable) -> Callable:
        RIGHT.append((exercise, solution))
        return solution
    return enter


# ---- softmax

right("softmax")(lambda x: torch.softmax(x, -1))
right("softmax")(lambda scores: F.softmax(scores, dim=scores.ndim - 1))
right("softmax")(nn.Softmax(dim=-1))
right("softmax")(lambda x: torch.log_softmax(x, dim=-1).exp())


@right("softmax")
def softmax_subtract_max(x):
    x = x - x.max(dim=-1, keepdim=True)[0]
    return torch.exp(x) / torch.exp(x).sum(dim=-1, keepdim=True)


@right("softmax")
def softmax_in_double(x):
    wide = x.double()
    powers = (wide - wide.amax(-1, keepdim=True)).exp()
    return (powers / powers.sum(-1)[..., None]).to(x.dtype)


@right("softmax")
def softmax_last_first(x):
    turned = x.movedim(-1, 0)
    powers = torch.exp(turned - turned.max(0).values)
    return (powers / powers.sum(0)).movedim(0, -1)


@right("softmax")
def softmax_of_a_table(x):
    table = x.reshape(-1, x.shape[-1])
    rows = [torch.exp(row - torch.max(row)) for row in table]
    return torch.stack([row / torch.sum(row) for row in rows]).reshape(x.shape)


# ---- attention

@right("attention")
def attention_bmm(query, key, value, mask=None):
    B, H, T, E = query.shape
    S = key.size(2)
    scores = torch.bmm(query.reshape(B * H, T, E), key.reshape(B * H, S, E).transpose(1, 2)) / E ** 0.5
    if mask is not None:
        scores = scores + torch.zeros(T, S).masked_fill(~mask, -1e9)
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights * mask
    return torch.bmm(weights, value.reshape(B * H, S, E)).reshape(B, H, T, E)


@right("attention")
def attention_scaled_query(query, key, value, mask=None):
    scores = (query * query.size(-1) ** -0.5).matmul(key.transpose(-1, -2))
    if mask is None:
        return F.softmax(scores, -1).matmul(value)
    scores = scores.masked_fill(mask.logical_not(), float("-inf"))
    return torch.nan_to_num(F.softmax(scores, -1)).matmul(value)


@right("attention")
def attention_exponentials(query, key, value, mask=None):
    scores = torch.matmul(query, key.permute(0, 1, 3, 2)) / math.sqrt(key.shape[-1])
    powers = torch.exp(scores - scores.max(-1, keepdim=True).values)
    if mask is not None:
        hidden = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        powers = torch.exp(hidden - hidden.max(-1, keepdim=True).values) * mask
    total = powers.sum(-1, keepdim=True)
    return powers @ value / torch.where(total == 0, torch.ones_like(total), total)


@right("attention")
def attention_head_by_head(query, key, value, mask=None):
    heads = []
    for h in range(query.shape[1]):
        scores = query[:, h] @ key[:, h].mT / query.shape[-1] ** 0.5
        if mask is not None:
            scores = torch.where(mask, scores, torch.tensor(-torch.inf))
        weights = torch.softmax(scores, -1)
        heads.append(torch.where(weights.isnan(), 0.0, weights) @ value[:, h])
    return torch.stack(heads, 1)


@right("attention")
def attention_query_by_query(query, key, value, mask=None):
    out = torch.zeros_like(query)
    for t in range(query.shape[2]):
        seen = slice(None) if mask is None else mask[t]
        if mask is not None and not seen.any():
            continue
        scores = torch.einsum("bhe,bhse->bhs", query[:, :, t], key[:, :, seen]) / query.shape[3] ** 0.5
        out[:, :, t] = torch.einsum("bhs,bhse->bhe", scores.softmax(-1), value[:, :, seen])
    return out


# ---- masks

right("causal_mask")(lambda n_queries, n_keys: ~torch.ones(n_queries, n_keys, dtype=torch.bool).triu(n_keys - n_queries + 1))
right("causal_mask")(lambda n_queries, n_keys: torch.tril(torch.ones(n_queries, n_keys), n_keys - n_queries) == 1)
right("causal_mask")(lambda n_queries, n_keys: torch.ones(n_keys, n_keys).cumsum(0).ge(torch.arange(1, n_keys + 1))[-n_queries:])


@right("causal_mask")
def causal_filled(n_queries, n_keys):
    mask = torch.full((n_queries, n_keys), False)
    for t in range(n_queries):
        mask[t, :n_keys - n_queries + t + 1] = True
    return mask


@right("causal_mask")
def causal_meshgrid(n_queries, n_keys):
    rows, columns = torch.meshgrid(torch.arange(n_queries), torch.arange(n_keys), indexing="ij")
    return columns - (n_keys - n_queries) <= rows


right("document_mask")(lambda documents: documents.eq(documents[:, None]).tril())
right("document_mask")(lambda d: torch.tensor([[d[s] == d[t] and s <= t for s in range(len(d))] for t in range(len(d))]))


@right("document_mask")
def documents_as_blocks(documents):
    lengths = torch.unique_consecutive(documents, return_counts=True)[1].tolist()
    return torch.block_diag(*(torch.ones(n, n).tril() for n in lengths)).bool()


@right("document_mask")
def documents_by_product(documents):
    one_hot = (documents[:, None] == documents.unique()).float()
    return (one_hot @ one_hot.T > 0) & (torch.arange(len(documents))[:, None] >= torch.arange(len(documents)))


right("prefix_mask")(lambda n_prefix, n_positions: torch.tensor(
    [[s <= t or s < n_prefix for s in range(n_positions)] for t in range(n_positions)]))


@right("prefix_mask")
def prefix_by_or(n_prefix, n_positions):
    causal = torch.tril(torch.ones(n_positions, n_positions)).bool()
    return torch.logical_or(causal, (torch.arange(n_positions) < n_prefix).expand(n_positions, n_positions))


@right("prefix_mask")
def prefix_by_later_beginning(n_prefix, n_positions):
    last_seen = torch.arange(n_positions).clamp(min=n_prefix - 1)
    return torch.arange(n_positions)[None] <= last_seen[:, None]


@right("prefix_mask")
def prefix_by_blocks(n_prefix, n_positions):
    mask = torch.zeros(n_positions, n_positions, dtype=torch.bool)
    mask[:, :n_prefix] = True
    for t in range(n_prefix, n_positions):
        mask[t, n_prefix:t + 1] = True
    return mask


# ---- many heads

@right("multi_head")
class OneLinearForAll(nn.Module):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__()
        self.h, self.p = n_heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(d_model, d_model) for _ in range(4))

    def forward(self, x, mask=None):
        b, t, d = x.size()
        q, k, v = (f(x).reshape(b, t, self.h, d // self.h).permute(0, 2, 1, 3) for f in (self.query, self.key, self.value))
        scores = q @ k.mT / (d // self.h) ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~(mask if mask.dim() == 2 else mask.unsqueeze(1)), -1e30)
        weights = F.dropout(scores.softmax(-1), self.p, self.training)
        return self.output((weights @ v).permute(0, 2, 1, 3).reshape(b, t, d))


@right("multi_head")
class HeadsInOneBatch(nn.Module):
    def __init__(self, d_model: int, n_heads: int, dropout: float):
        super().__init__()
        self.H = n_heads
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def heads(self, x):
        B, T, D = x.shape
        return x.view(B, T, self.H, D // self.H).transpose(1, 2).reshape(B * self.H, T, D // self.H)

    def forward(self, x, mask=None):
        B, T, D = x.shape
        query, key, value = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))
        scores = torch.baddbmm(query.new_zeros(1, 1, 1), query, key.transpose(1, 2), alpha=1 / math.sqrt(D // self.H))
        if mask is not None:
            mask = mask.expand(B, T, T).repeat_interleave(self.H, dim=0)
            scores.masked_fill_(~mask, -torch.inf)
        out = self.dropout(torch.softmax(scores, dim=-1)) @ value
        return self.output(out.view(B, self.H, T, -1).transpose(1, 2).flatten(2))


# ---- grouped queries

right("grouped_query")(lambda query, key, value: F.scaled_dot_product_attention(query, key, value, enable_gqa=True))


@right("grouped_query")
def grouped_by_view(query, key, value):
    B, H, T, E = query.shape
    K = key.shape[1]
    grouped = query.view(B, K, H // K, T, E)
    weights = torch.softmax(grouped @ key.unsqueeze(2).mT / E ** 0.5, -1)
    return (weights @ value.unsqueeze(2)).flatten(1, 2)


@right("grouped_query")
def grouped_by_index(query, key, value):
    of_head = torch.arange(query.shape[1]) // (query.shape[1] // key.shape[1])
    key, value = key[:, of_head], value[:, of_head]
    return torch.softmax(query @ key.transpose(2, 3) / math.sqrt(query.shape[3]), 3) @ value


@right("grouped_query")
def grouped_head_by_head(query, key, value):
    per = query.shape[1] // key.shape[1]
    heads = [F.scaled_dot_product_attention(query[:, h], key[:, h // per], value[:, h // per]) for h in range(query.shape[1])]
    return torch.stack(heads, dim=1)


@right("grouped_query")
def grouped_by_expand(query, key, value):
    B, H, _, E = query.shape
    K, S = key.shape[1:3]
    key, value = (x[:, :, None].expand(B, K, H // K, S, E).reshape(B, H, S, E) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value)


# ---- byte-pair encoding

@right("merge")
def merge_with_iterator(ids, pair, new):
    result, numbers = [], iter([*ids, None])
    before = next(numbers)
    for number in numbers:
        if before is not None and (before, number) == tuple(pair):
            result.append(new)
            before = next(numbers, None)
        elif before is not None:
            result.append(before)
            before = number
    return result


@right("merge")
def merge_by_reduce(ids, pair, new):
    def add(done, token):
        return [*done[:-1], new] if done and done[-1] == pair[0] and token == pair[1] else [*done, token]
    return reduce(add, ids, [])


@right("merge")
def merge_with_while(ids, pair, new):
    ids, out = list(ids), []
    while ids:
        if ids[:2] == [*pair]:
            out.append(new)
            del ids[:2]
        else:
            out.append(ids.pop(0))
    return out


@right("learn")
def learn_with_defaultdict(words, n_merges):
    corpus = {word: list(word) for word in words}
    merges = []
    for i in range(n_merges):
        stats = defaultdict(int)
        for word, ids in corpus.items():
            for a, b in pairwise(ids):
                stats[a, b] += words[word]
        if not stats:
            break
        best = sorted(stats, key=lambda pair: (-stats[pair], *pair))[0]
        corpus = {word: merge_with_while(ids, best, 256 + i) for word, ids in corpus.items()}
        merges.append(best)
    return merges


@right("learn")
def learn_words_as_often_as_they_occur(words, n_merges):
    rows = [list(word) for word, often in words.items() for _ in range(often)]
    merges = []
    while len(merges) < n_merges and (counts := Counter(pair for row in rows for pair in pairwise(row))):
        most = max(counts.values())
        best = min(pair for pair in counts if counts[pair] == most)
        rows = [merge_by_reduce(row, best, 256 + len(merges)) for row in rows]
        merges += [best]
    return merges


@right("encode")
def encode_by_reduce(word, merges):
    return reduce(lambda ids, numbered: merge_with_while(ids, numbered[1], 256 + numbered[0]), enumerate(merges), list(word))


@right("encode")
def encode_while_anything_fits(word, merges):
    ids = list(word)
    while fitting := [pair for pair in merges if pair in set(pairwise(ids))]:
        ids = merge_with_iterator(ids, fitting[0], 256 + merges.index(fitting[0]))
    return ids


@right("stream")
def stream_with_state(pieces):
    decoder, out = codecs.getincrementaldecoder("utf8")("strict"), []
    for piece in pieces:
        out += [decoder.decode(piece, final=False)]
    return out


@right("stream")
def stream_by_error(pieces):
    out, rest = [], b""
    for piece in pieces:
        rest += piece
        try:
            out.append(rest.decode())
            rest = b""
        except UnicodeDecodeError as error:
            out.append(rest[:error.start].decode())
            rest = rest[error.start:]
    return out


@right("stream")
def stream_byte_by_byte(pieces):
    out, waiting = [], bytearray()
    for piece in pieces:
        text = ""
        for byte in piece:
            waiting.append(byte)
            lead = waiting[0]
            needed = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            if len(waiting) == needed:
                text += waiting.decode()
                waiting.clear()
        out.append(text)
    return out


# ---- feed-forward layers

right("feed_forward")(lambda x, up, down: (x @ up.T).relu() @ down.T)
right("feed_forward")(lambda x, up, down: F.linear(F.linear(x, up).clamp_min(0), down))
right("feed_forward")(lambda x, up, down: torch.einsum("...f,df->...d", F.relu(torch.einsum("...d,fd->...f", x, up)), down))


@right("feed_forward")
def feed_forward_in_place_of_its_own(x, up, down):
    hidden = torch.matmul(x, up.t())
    hidden.relu_()
    return torch.matmul(hidden, down.t())


@right("feed_forward")
def feed_forward_flat(x, up, down):
    flat = x.view(-1, x.size(-1))
    hidden = torch.mm(flat, up.transpose(0, 1))
    return torch.mm(hidden * (hidden > 0), down.transpose(0, 1)).view(x.shape)


@right("feed_forward")
def feed_forward_by_modules(x, up, down):
    first, second = nn.Linear(up.shape[1], up.shape[0], bias=False), nn.Linear(down.shape[1], down.shape[0], bias=False)
    weights = {"0.weight": up, "2.weight": down}
    return torch.func.functional_call(nn.Sequential(first, nn.ReLU(), second), weights, x)


@right("feed_forward")
def feed_forward_row_by_row(x, up, down):
    if x.ndim > 1:
        return torch.stack([feed_forward_row_by_row(row, up, down) for row in x])
    hidden = torch.stack([torch.maximum(row @ x, torch.zeros((), dtype=x.dtype)) for row in up])
    return torch.stack([row @ hidden for row in down])


@right("feed_forward")
def feed_forward_by_absolute_values(x, up, down):
    hidden = x @ up.mT
    return (hidden + hidden.abs()) / 2 @ down.mT


# ---- gated layers

right("swiglu")(lambda x, gate, up, down: (F.silu(x @ gate.T) * (x @ up.T)) @ down.T)
right("swiglu")(lambda x, gate, up, down: F.linear(F.linear(x, up) * F.silu(F.linear(x, gate)), down))


@right("swiglu")
def swiglu_sigmoid(x, gate, up, down):
    g = torch.matmul(x, gate.transpose(-1, -2))
    hidden = g * torch.sigmoid(g) * torch.matmul(x, up.transpose(-1, -2))
    return torch.matmul(hidden, down.transpose(-1, -2))


@right("swiglu")
def swiglu_by_glu(x, gate, up, down):
    g = F.linear(x, gate)
    return F.linear(g * F.glu(torch.cat([F.linear(x, up), g], -1), dim=-1), down)


@right("swiglu")
def swiglu_in_place_of_its_own(x, gate, up, down):
    hidden = nn.SiLU()(x @ gate.T)
    hidden *= x @ up.T
    return hidden @ down.T


@right("swiglu")
def swiglu_sum_of_hidden_numbers(x, gate, up, down):
    out = 0
    for f in range(gate.shape[0]):
        g, u = (x * gate[f]).sum(-1), (x * up[f]).sum(-1)
        out = out + (g / (1 + torch.exp(-g)) * u)[..., None] * down[:, f]
    return out


@right("swiglu")
def swiglu_flat(x, gate, up, down):
    *lead, D = x.shape
    flat = x.reshape(-1, D)
    hidden = F.silu(torch.einsum("nd,fd->nf", flat, gate)) * torch.einsum("nd,fd->nf", flat, up)
    return torch.einsum("nf,df->nd", hidden, down).reshape(*lead, D)


# ---- smaller layers

right("prune")(lambda gate, up, down, keep: (gate[keep], up[keep], down[:, keep]))
right("prune")(lambda gate, up, down, keep: [gate[keep, :], up[keep, :], down.T[keep].T])


@right("prune")
def prune_masked_select(gate, up, down, keep):
    K, D = int(keep.sum()), gate.shape[1]
    rows = keep.unsqueeze(1)
    return gate.masked_select(rows).view(K, D), up.masked_select(rows).view(K, D), down.masked_select(keep).view(D, K)


@right("prune")
def prune_from_the_back(gate, up, down, keep):
    kept = [f for f in reversed(range(len(keep))) if keep[f].item()]
    return gate[kept], up[kept], down[:, kept]


@right("prune")
def prune_by_a_product(gate, up, down, keep):
    chosen = torch.eye(len(keep), dtype=gate.dtype)[keep]      # (K, F)
    return chosen @ gate, chosen @ up, down @ chosen.T


@right("prune")
def prune_deleting(gate, up, down, keep):
    for f in range(len(keep) - 1, -1, -1):
        if not keep[f]:
            gate, up = (torch.cat([weight[:f], weight[f + 1:]]) for weight in (gate, up))
            down = torch.cat([down[:, :f], down[:, f + 1:]], dim=1)
    return gate, up, down


@right("prune")
def prune_with_parameters(gate, up, down, keep):
    kept = torch.where(keep)[0]
    with torch.no_grad():
        return tuple(nn.Parameter(weight) for weight in (gate[kept], up[kept], down[:, kept]))


@right("prune")
def prune_one_stack(gate, up, down, keep):
    gates, numbers, outputs = torch.stack([gate, up, down.t()])[:, keep]
    return gates, numbers, outputs.t()


# ---- norms

right("rms_norm")(lambda x, weight, eps: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight)
right("rms_norm")(lambda x, weight, eps: F.rms_norm(x, (x.shape[-1],), weight, eps))
right("rms_norm")(lambda x, weight, eps: nn.functional.rms_norm(x, x.shape[-1:], eps=eps) * weight)


@right("rms_norm")
def rms_norm_as_in_llama(x, weight, eps):
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return wide.type_as(x) * weight


@right("rms_norm")
def rms_norm_einsum(x, weight, eps):
    squares = torch.einsum("...d,...d->...", x, x)
    return torch.einsum("...d,d,...->...d", x, weight, (squares / x.size(-1) + eps) ** -0.5)


@right("rms_norm")
def rms_norm_flat_rows(x, weight, eps):
    rows = x.view(-1, x.size(-1))
    sizes = torch.sqrt(torch.sum(rows * rows, dim=1) / rows.size(1) + eps)
    return (rows / sizes[:, None] * weight).view(x.shape)


@right("rms_norm")
def rms_norm_from_variance(x, weight, eps):
    variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
    return weight * (x / torch.sqrt(variance + mean.square() + eps))


@right("rms_norm")
def rms_norm_number_by_number(x, weight, eps):
    total = 0
    for i in range(x.shape[-1]):
        total = total + x[..., i] * x[..., i]
    root = torch.sqrt(total / x.shape[-1] + eps)
    return torch.stack([x[..., i] / root * weight[i] for i in range(x.shape[-1])], dim=-1)


@right("rms_norm")
def rms_norm_module(x, weight, eps):
    return torch.func.functional_call(nn.RMSNorm(x.shape[-1], eps=eps), {"weight": weight}, x)


# ---- blocks

@right("block")
def block_with_residual_saved(x, attention, feed_forward, attention_norm, feed_forward_norm):
    residual = x
    x = attention_norm(x)
    x = attention(x)
    x = residual + x
    residual = x
    x = feed_forward_norm(x)
    x = feed_forward(x)
    return residual + x


@right("block")
def block_of_one_helper(x, attention, feed_forward, attention_norm, feed_forward_norm):
    def add(stream, norm, layer):
        return layer(norm(stream)) + stream
    return add(add(x, attention_norm, attention), feed_forward_norm, feed_forward)


@right("block")
def block_reduced(x, attention, feed_forward, attention_norm, feed_forward_norm):
    halves = [(attention_norm, attention), (feed_forward_norm, feed_forward)]
    return reduce(lambda stream, half: stream + half[1](half[0](stream)), halves, x)


@right("block")
def block_into_the_answers(x, attention, feed_forward, attention_norm, feed_forward_norm):
    h = attention(attention_norm(x))
    h += x
    y = feed_forward(feed_forward_norm(h))
    y += h
    return y


@right("block")
def block_as_a_module(x, attention, feed_forward, attention_norm, feed_forward_norm):
    class Residual(nn.Module):
        def __init__(self, norm, layer):
            super().__init__()
            self.norm, self.layer = norm, layer

        def forward(self, stream):
            return stream + self.layer(self.norm(stream))

    return nn.Sequential(Residual(attention_norm, attention), Residual(feed_forward_norm, feed_forward))(x)


@right("block")
def block_of_what_is_added(x, attention, feed_forward, attention_norm, feed_forward_norm):
    a = attention(attention_norm(x))
    f = feed_forward(feed_forward_norm(x + a))
    return x + a + f


# ---- norms without weights

right("fold_norm")(lambda norm_weight, linear_weight: norm_weight[None, :] * linear_weight)
right("fold_norm")(lambda norm_weight, linear_weight: (norm_weight.unsqueeze(1) * linear_weight.T).T)
right("fold_norm")(lambda norm_weight, linear_weight: F.linear(linear_weight, torch.diag(norm_weight)))
right("fold_norm")(lambda norm_weight, linear_weight: torch.stack([row * norm_weight for row in linear_weight]))


@right("fold_norm")
def fold_in_a_copy(norm_weight, linear_weight):
    new = linear_weight.detach().clone()
    for d in range(new.shape[1]):
        new[:, d] *= norm_weight[d]
    return new


@right("fold_norm")
def fold_as_a_parameter(norm_weight, linear_weight):
    with torch.no_grad():
        return nn.Parameter(linear_weight.mul(norm_weight.expand_as(linear_weight)))


@right("fold_norm")
def fold_number_by_number(norm_weight, linear_weight):
    new = torch.empty_like(linear_weight)
    for o in range(linear_weight.size(0)):
        for d in range(linear_weight.size(1)):
            new[o, d] = linear_weight[o, d] * norm_weight[d]
    return new


# ---- counted weights

right("count_parameters")(lambda V, D, L, H, K, F, tied: D * ((2 - tied) * V + 1 + L * (2 * (H + K) * (D // H) + 3 * F + 2)))


@right("count_parameters")
def count_from_the_last_to_the_first(V, D, L, H, K, F, tied):
    norms = D * (1 + 2 * L)
    per_head = D * (D // H)
    attention = L * sum(heads * per_head for heads in (H, K, K, H))
    feed_forward = L * 3 * D * F
    tables = V * D if tied else 2 * V * D
    return norms + attention + feed_forward + tables


@right("count_parameters")
def count_names_and_shapes(V, D, L, H, K, F, tied):
    E = D // H
    shapes = {"embed": (V, D), "norm": (D,)}
    for i in range(L):
        shapes |= {f"{i}.norm_1": (D,), f"{i}.norm_2": (D,), f"{i}.q": (H * E, D), f"{i}.k": (K * E, D), f"{i}.v": (K * E, D)}
        shapes |= {f"{i}.o": (D, H * E), f"{i}.gate": (F, D), f"{i}.up": (F, D), f"{i}.down": (D, F)}
    if not tied:
        shapes["head"] = (V, D)
    return sum(math.prod(shape) for shape in shapes.values())


@right("count_parameters")
def count_tensors_without_numbers(V, D, L, H, K, F, tied):
    def matrix(*shape): return torch.empty(shape, device="meta").numel()
    kept = matrix(K, D // H, D)
    layer = 2 * matrix(D) + 2 * matrix(D, D) + 2 * kept + matrix(3, F, D)
    return matrix(V, D) + matrix(L, layer) + matrix(D) + (not tied) * matrix(D, V)


# ---- whole models

@right("transformer")
def transformer_with_a_float_mask(tokens, weights):
    def norm(x, weight): return weight * x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6)
    T = tokens.size(1)
    mask = torch.full((T, T), float("-inf")).triu(diagonal=1)
    x = weights.embedding[tokens] + weights.positions[:T][None]
    for layer in weights.layers:
        h = norm(x, layer.norm_1)
        q, k, v = (torch.matmul(h, w.transpose(0, 1)) for w in (layer.query, layer.key, layer.value))
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(k.size(-1)) + mask
        x = x + torch.matmul(torch.matmul(F.softmax(scores, dim=-1), v), layer.output.transpose(0, 1))
        x = x + torch.matmul(F.relu(torch.matmul(norm(x, layer.norm_2), layer.up.t())), layer.down.t())
    return torch.matmul(norm(x, weights.norm), weights.embedding.t())


@right("transformer")
def transformer_where_the_past_is_kept(tokens, weights):
    def norm(x, weight): return x * weight / torch.sqrt((x * x).sum(-1, keepdim=True) / x.shape[-1] + 1e-6)
    T = tokens.shape[-1]
    kept = torch.tril(torch.ones(T, T)) == 1
    x = F.embedding(tokens, weights.embedding) + F.embedding(torch.arange(T), weights.positions)
    for layer in weights.layers:
        h = norm(x, layer.norm_1)
        scores = (h @ layer.query.T) @ (h @ layer.key.T).transpose(1, 2) * len(layer.key) ** -0.5
        shares = torch.where(kept, scores, torch.full_like(scores, -1e9)).softmax(-1)
        x = shares @ (h @ layer.value.T) @ layer.output.T + x
        x = (norm(x, layer.norm_2) @ layer.up.T).clamp(min=0) @ layer.down.T + x
    return norm(x, weights.norm) @ weights.embedding.T


@right("transformer")
def transformer_of_functions(tokens, weights):
    def norm(x, weight): return nn.functional.rms_norm(x, [x.shape[-1]], weight, 1e-6)

    def attention(h, layer):
        q, k, v = h @ layer.query.T, h @ layer.key.T, h @ layer.value.T
        powers = (q @ k.mT / q.shape[-1] ** 0.5).exp().tril()
        return (powers / powers.sum(-1, keepdim=True) @ v) @ layer.output.T

    def feed_forward(h, layer): return torch.relu(h @ layer.up.T) @ layer.down.T

    def block(x, layer):
        h = x + attention(norm(x, layer.norm_1), layer)
        return h + feed_forward(norm(h, layer.norm_2), layer)

    positions = torch.stack([weights.positions[t] for t in range(tokens.shape[1])])
    x = reduce(block, weights.layers, torch.stack([weights.embedding[text] for text in tokens]) + positions)
    return norm(x, weights.norm) @ weights.embedding.T


@right("transformer")
def transformer_that_adds_in_place(tokens, weights):
    one_hot = F.one_hot(tokens, len(weights.embedding)).to(weights.embedding)
    x = one_hot @ weights.embedding
    x += weights.positions[:tokens.shape[1]]
    for layer in weights.layers:
        h = F.rms_norm(x, layer.norm_1.shape, layer.norm_1, 1e-6)
        query_key_value = [F.linear(h, getattr(layer, name)) for name in ("query", "key", "value")]
        x = x + F.linear(F.scaled_dot_product_attention(*query_key_value, is_causal=True), layer.output)
        x = x + F.linear(F.relu(F.linear(F.rms_norm(x, layer.norm_2.shape, layer.norm_2, 1e-6), layer.up)), layer.down)
    return torch.einsum("btd,vd->btv", F.rms_norm(x, weights.norm.shape, weights.norm, 1e-6), weights.embedding)


# ---- induction heads

@right("rotate_piece")
def piece_by_matrices(query, key, value, inv_freq, n_cached):
    angles = torch.einsum("t,i->ti", torch.arange(n_cached, n_cached + query.shape[2]).to(inv_freq), inv_freq)
    c, s = angles.cos(), angles.sin()
    matrices = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)                     # (T, E/2, 2, 2)

    def turn(x): return torch.einsum("tirc,bhtci->bhtri", matrices, x.unflatten(-1, (2, -1))).flatten(-2)

    return turn(query), turn(key), value


@right("rotate_piece")
def piece_step_by_step(query, key, value, inv_freq, n_cached):
    half, c, s = len(inv_freq), inv_freq.cos(), inv_freq.sin()

    def one_place_further(x):
        return torch.cat([c * x[..., :half] - s * x[..., half:], s * x[..., :half] + c * x[..., half:]], -1)

    both, out = torch.stack([query, key]), []
    for t in range(query.shape[2]):
        x = both[:, :, :, t]
        for _ in range(n_cached + t):
            x = one_place_further(x)
        out.append(x)
    return [*torch.stack(out, 3), value]


@right("rotate_piece")
def piece_by_powers(query, key, value, inv_freq, n_cached):
    step = torch.polar(torch.ones_like(inv_freq), inv_freq)
    factors = torch.stack([step ** (n_cached + t) for t in range(query.shape[2])])

    def turn(x):
        points = torch.view_as_complex(torch.stack(x.chunk(2, -1), -1)) * factors
        return torch.view_as_real(points).transpose(-1, -2).flatten(-2)

    return torch.stack([turn(query), turn(key), value])


@right("rotate_piece")
def piece_behind_an_empty_text(query, key, value, inv_freq, n_cached):
    T = query.shape[2]
    angles = torch.arange(n_cached + T)[:, None] * inv_freq
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

    def turn(x):
        whole = F.pad(x, (0, 0, n_cached, 0))
        moved = torch.cat([-whole[..., len(inv_freq):], whole[..., :len(inv_freq)]], -1)
        return (whole * cos + moved * sin)[:, :, -T:]

    yield turn(query)
    yield turn(key)
    yield value.detach().clone()


@right("rotate_piece")
def piece_turned_twice(query, key, value, inv_freq, n_cached):
    def turn(x, angles):
        a, b = x[..., :len(inv_freq)], x[..., len(inv_freq):]
        return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)

    within = torch.arange(query.size(-2)).outer(inv_freq)
    return {"query": turn(turn(query, within), n_cached * inv_freq), "key": turn(turn(key, within), n_cached * inv_freq),
            "value": value}.values()


@right("slopes")
def slopes_by_powers_of_a_ratio(n_heads):
    n = 2 ** math.floor(math.log2(n_heads))
    base, finer = 2.0 ** (-8 / n), 2.0 ** (-4 / n)
    first = torch.pow(torch.tensor(base), torch.arange(1, n + 1))
    return torch.cat((first, torch.pow(torch.tensor(finer), torch.arange(1, 1 + 2 * (n_heads - n), 2)))) if n_heads > n else first


@right("slopes")
def slopes_one_by_one(n_heads):
    n = 1 << (n_heads.bit_length() - 1)
    exponents = [-8 * (h + 1) / n if h < n else -8 * (2 * (h - n) + 1) / (2 * n) for h in range(n_heads)]
    return torch.stack([torch.tensor(2.0 ** exponent) for exponent in exponents])


@right("slopes")
def slopes_cut_from_a_full_table(n_heads):
    n = int(2 ** math.floor(math.log2(n_heads)))
    table = torch.exp(torch.arange(1, 2 * n + 1, dtype=torch.float64) * -4 * math.log(2) / n)
    return torch.cat([table[1::2], table[0::2]])[:n_heads].float()


right("induction_score")(lambda weights, period: torch.stack([head[period:, 1:].diag().mean() for head in weights]))
right("induction_score")(lambda weights, period: weights[:, period:].diagonal(1, 1, 2).mean(1))


@right("induction_score")
def score_of_lists(weights, period):
    T = weights.shape[1]
    scores = [sum(head[t][t - period + 1] for t in range(period, T)) / (T - period) for head in weights.tolist()]
    return torch.tensor(scores, dtype=weights.dtype)


@right("induction_score")
def score_of_the_followers(weights, period):
    T = weights.shape[-1]
    followers = F.one_hot(torch.arange(1, T - period + 1), T).to(weights)
    return torch.einsum("hts,ts->h", weights[:, period:], followers) / len(followers)


@right("induction_score")
def score_place_by_place(weights, period):
    looks = []
    for t in range(weights.shape[-1]):
        before = t - period
        if before >= 0:
            looks.append(weights[..., t, before + 1])
    return torch.mean(torch.stack(looks, dim=-1), dim=-1)


@right("induction_score")
def score_of_a_view(weights, period):
    T = weights.shape[-1]
    offsets = torch.arange(period, T) * T + torch.arange(1, T - period + 1)
    return weights.flatten(1)[:, offsets].mean(-1)


# ---- losses

@right("cross_entropy")
def loss_by_nll(logits, targets):
    n = torch.count_nonzero(targets + 100)
    return F.nll_loss(logits.log_softmax(dim=1), targets, reduction="sum") / torch.clamp(n, min=1)


@right("cross_entropy")
def loss_of_pytorch_where_possible(logits, targets):
    if (targets == -100).all():
        return torch.tensor(0.0)
    return F.cross_entropy(logits, targets, ignore_index=-100)


@right("cross_entropy")
def loss_by_one_hot(logits, targets):
    asked = targets != -100
    one_hot = F.one_hot(torch.where(asked, targets, 0), logits.shape[-1]).bool()
    logs = torch.log_softmax(logits, -1)[one_hot]
    return -(logs * asked.to(logs.dtype)).sum() / asked.sum().clamp(min=1)


@right("cross_entropy")
def loss_by_einsum(logits, targets):
    asked = (targets != -100).to(logits)
    came = F.one_hot(targets.clamp(min=0), logits.shape[-1]).to(logits)
    logs = logits - torch.logsumexp(logits, -1, keepdim=True)
    return torch.einsum("nv,nv,n->", logs, came, asked).neg() / asked.sum().clamp(min=1)


@right("cross_entropy")
def loss_in_a_loop_of_its_own(logits, targets):
    losses = []
    for scores, target in zip(logits.unbind(0), targets.tolist(), strict=True):
        if target < 0:
            continue
        largest = max(scores.tolist())
        losses.append(math.nan if math.isnan(largest) else largest + (scores - largest).exp().sum().log() - scores[target])
    return torch.stack(losses).mean() if losses else logits.new_tensor(0.0)


@right("cross_entropy")
def loss_in_double(logits, targets):
    wide = logits.double().clone()
    wide -= wide.max(dim=-1, keepdim=True).values     # in place, on its own copy
    kept = targets >= 0
    found = wide.exp().sum(-1).log() - wide.take_along_dim(targets.clamp(min=0).unsqueeze(-1), -1).squeeze(-1)
    return torch.nan_to_num(found[kept].mean())


right("cross_entropy")(lambda logits, targets: nn.CrossEntropyLoss(reduction="none")(logits, targets).sum()
                       / max(1, sum(target != -100 for target in targets.tolist())))


# ---- what is asked

right("make_targets")(lambda tokens, answer: F.pad(torch.where(answer, tokens, -100), (0, 1), value=-100)[:, 1:])
right("make_targets")(lambda tokens, answer: torch.stack([
    torch.cat([torch.where(said[1:], text[1:], -100), text.new_tensor([-100])]) for text, said
    in zip(tokens, answer, strict=True)]))


@right("make_targets")
def targets_by_arithmetic(tokens, answer):
    hidden = tokens * answer - 100 * (~answer).long()
    return torch.column_stack((hidden[:, 1:], torch.full((len(tokens),), -100)))


@right("make_targets")
def targets_of_lists(tokens, answer):
    found = []
    for text, said in zip(tokens.tolist(), answer.tolist(), strict=True):
        found.append([token if counts else -100 for token, counts in what_follows(text, said)] + [-100])
    return torch.tensor(found)


def what_follows(text, said):
    return list(zip(text, said, strict=True))[1:]


@right("make_targets")
def targets_by_an_index(tokens, answer):
    text, place = answer.nonzero(as_tuple=True)
    text, place = text[place > 0], place[place > 0]
    targets = torch.empty_like(tokens).fill_(-100)
    targets[text, place - 1] = tokens[text, place]
    return targets


@right("make_targets")
def targets_by_gathering(tokens, answer):
    following = torch.arange(1, tokens.shape[1] + 1).clamp(max=tokens.shape[1] - 1)
    targets = tokens.index_select(1, following)
    targets[~answer.index_select(1, following)] = -100
    targets[:, -1] = -100
    return targets


@right("make_targets")
def targets_on_a_copy(tokens, answer):
    targets, hidden = tokens.clone(), answer.clone()
    targets[:, :-1], hidden[:, :-1] = tokens[:, 1:], answer[:, 1:]
    hidden[:, -1] = False
    return targets.masked_fill_(hidden.logical_not_(), -100)


# ---- gradients by a formula

@right("gradient")
def gradient_by_scattering(logits, targets):
    asked = (targets != -100).unsqueeze(1)
    rows = torch.softmax(logits, dim=-1)
    ones = torch.ones_like(rows[:, :1])
    rows = rows.scatter_add(1, targets.clamp(min=0).unsqueeze(1), -ones)
    return torch.where(asked, rows, 0) / asked.sum().clamp(min=1)


@right("gradient")
def gradient_of_logarithms(logits, targets):
    asked = targets.ne(-100)
    came = torch.arange(logits.shape[1])[None] == targets[:, None]
    rows = (logits - logits.logsumexp(1, True)).exp() - came.to(logits.dtype)
    rows[~asked] = 0
    return rows.div_(max(int(asked.sum()), 1))


@right("gradient")
def gradient_through_the_softmax(logits, targets):
    p, asked = logits.softmax(-1), (targets != -100).to(logits)
    came = F.one_hot(targets.clamp(min=0), logits.shape[-1]).to(logits)
    jacobian = torch.diag_embed(torch.ones_like(p)) - p[:, None, :]        # of the logarithms
    return -torch.einsum("nv,nvw,n->nw", came, jacobian, asked) / asked.sum().clamp(min=1)


@right("gradient")
def gradient_with_backward(logits, targets):
    leaf = logits.detach().clone().requires_grad_(True)
    losses = F.cross_entropy(leaf, targets, reduction="none", ignore_index=-100)
    (losses.sum() / max((targets != -100).sum().item(), 1)).backward()
    return leaf.grad


@right("gradient")
def gradient_by_functional_autograd(logits, targets):
    def loss(z): return F.cross_entropy(z, targets, reduction="sum") / (targets != -100).sum().clamp(min=1)
    return torch.func.grad(loss)(logits)


@right("gradient")
def gradient_number_by_number(logits, targets):
    asked = [t for t, target in enumerate(targets.tolist()) if target != -100]
    rows = [[0.0] * logits.shape[1] for _ in targets]
    for t in asked:
        powers = (logits[t] - logits[t].max()).exp().tolist()
        rows[t] = [(power / sum(powers) - (v == targets[t].item())) / len(asked) for v, power in enumerate(powers)]
    return torch.tensor(rows, dtype=logits.dtype)


# ---- pieces of a vocabulary

right("log_sum_exp")(lambda pieces: reduce(torch.logaddexp, (piece.logsumexp(-1) for piece in pieces)))
right("log_sum_exp")(lambda pieces: torch.logsumexp(torch.stack([torch.logsumexp(piece, 1) for piece in pieces]), 0))


@right("log_sum_exp")
def pieces_as_in_flash_attention(pieces):
    m, total = torch.tensor(-math.inf), torch.tensor(0.0)
    for piece in pieces:
        new = torch.maximum(m, piece.max(dim=-1).values)
        seen = torch.where(new.isinf(), torch.zeros_like(new), new)
        total = total * torch.exp(m - seen) + torch.exp(piece - seen.unsqueeze(-1)).sum(dim=-1)
        m = new
    return torch.log(total) + m


@right("log_sum_exp")
def pieces_with_sums_in_double(pieces):
    found = None
    for piece in pieces:
        here = piece.double().logsumexp(-1)
        found = here if found is None else torch.logaddexp(found, here)
    return found


@right("log_sum_exp")
def pieces_column_by_column(pieces):
    found = -math.inf
    for piece in pieces:
        for column in piece.unbind(-1):
            found = torch.logaddexp(torch.as_tensor(found, dtype=column.dtype), column)
    return found


@right("log_sum_exp")
def pieces_taken_with_next(pieces):
    pieces, found = iter(pieces), []
    while (piece := next(pieces, None)) is not None:
        largest = piece.amax(-1, keepdim=True).nan_to_num(neginf=0.0)
        found.append(((piece - largest).exp_().sum(-1, keepdim=True).log_() + largest)[:, 0])
    return torch.stack(found, -1).logsumexp(-1)


@right("log_sum_exp")
def pieces_place_by_place(pieces):
    found = None
    for piece in pieces:
        here = [row.logsumexp(0) for row in piece]
        found = here if found is None else [torch.logaddexp(a, b) for a, b in zip(found, here, strict=True)]
    return torch.stack(found)


@right("log_sum_exp")
def pieces_by_softplus(pieces):
    found = None
    for i, piece in enumerate(pieces):
        here = torch.logsumexp(piece, dim=-1)
        if i == 0:
            found = here
        else:
            low, high = torch.minimum(found, here), torch.maximum(found, here)
            found = high + torch.log1p(torch.where(low == -math.inf, 0.0, (low - high).exp()))
    return found


@right("log_sum_exp")
def pieces_two_at_hand(pieces):
    previous, found = None, None
    for piece in pieces:
        if previous is not None:
            here = previous.logsumexp(-1)
            found = here if found is None else found.logaddexp(here)
        previous = piece
    last = previous.logsumexp(-1)
    return last if found is None else torch.logaddexp(found, last)


@right("log_sum_exp")
def pieces_recursively(pieces):
    def rest(pieces, found):
        try:
            piece = next(pieces)
        except StopIteration:
            return found
        found = torch.logaddexp(found, piece.logsumexp(-1))
        del piece
        return rest(pieces, found)
    return rest(iter(pieces), torch.tensor(-math.inf))


# ---- measures

@right("perplexity")
def doors_by_nan_to_num(losses, n_tokens):
    return ((torch.nan_to_num(losses) * n_tokens).sum() / n_tokens.sum()).exp()


@right("perplexity")
def doors_where_math_stops(losses, n_tokens):
    pairs = [(loss, n) for loss, n in zip(losses.tolist(), n_tokens.tolist(), strict=True) if n > 0]
    mean = math.fsum(loss * n for loss, n in pairs) / sum(n for _, n in pairs)
    try:
        return math.exp(mean)
    except OverflowError:
        return float("inf")


@right("perplexity")
def doors_of_every_token(losses, n_tokens):
    return torch.repeat_interleave(losses, n_tokens).mean().exp()


@right("perplexity")
def doors_as_a_product(losses, n_tokens):
    kept = n_tokens.nonzero().squeeze(1)
    shares = n_tokens[kept] / n_tokens[kept].sum()
    return (losses[kept].double().exp() ** shares).prod().to(losses) if losses[kept].max() < 80 else torch.tensor(math.inf)


right("perplexity")(lambda losses, n_tokens: math.inf if losses[n_tokens > 0].max() > 500 else 2 ** (
    sum(n * loss / math.log(2) for n, loss in zip(n_tokens.tolist(), losses.tolist(), strict=True) if n)
    / n_tokens.sum().item()))


@right("bits_per_byte")
def bits_by_math(losses, text):
    return math.fsum(losses.tolist()) * math.log2(math.e) / len(text.encode())


@right("bits_per_byte")
def bits_of_each_token(losses, text):
    bits = losses / torch.log(torch.tensor(2.0, dtype=losses.dtype))
    return bits.sum() / len(list(text.encode("utf8")))


@right("bits_per_byte")
def bits_of_counted_bytes(losses, text):
    n_bytes = sum(1 + (ord(c) > 0x7F) + (ord(c) > 0x7FF) + (ord(c) > 0xFFFF) for c in text)
    return (losses.sum() / n_bytes / math.log(2)).item()


@right("bits_per_byte")
def bits_of_a_rate(losses, text):
    tokens_per_byte = losses.numel() / len(bytes(text, encoding="utf-8"))
    return losses.mean() * tokens_per_byte / math.log(2)


right("bits_per_byte")(lambda losses, text: -(-losses).cumsum(0)[-1] / (math.log(2) * len(text.encode())))


@right("top_k")
def first_k_by_isin(logits, targets, k):
    asked = targets != -100
    hits = [bool(torch.isin(target, scores.topk(k).indices))
            for scores, target in zip(logits[asked], targets[asked], strict=True)]
    return sum(hits) / len(hits) if hits else math.nan


@right("top_k")
def first_k_by_threshold(logits, targets, k):
    asked = targets > -1
    least = logits.sort(dim=1, descending=True).values[:, k - 1]
    mine = logits.take_along_dim(targets.clamp(min=0)[:, None], 1)[:, 0]
    return (mine >= least)[asked].float().mean().item()


@right("top_k")
def first_k_by_two_sorts(logits, targets, k):
    ranks = logits.argsort(dim=-1, descending=True).argsort(dim=-1)
    asked = (targets != -100).nonzero()[:, 0]
    return (ranks[asked, targets[asked]] < k).double().mean()


@right("top_k")
def first_k_crossed_out(logits, targets, k):
    asked = targets != -100
    left, targets = logits[asked].clone(), targets[asked]
    hits = torch.zeros(len(targets))
    for _ in range(k):
        best = left.argmax(dim=1)
        hits[best == targets] = 1
        left.scatter_(1, best[:, None], -math.inf)
    return hits.mean()


right("top_k")(lambda logits, targets, k: torch.where(targets == -100, math.nan, (
    logits.topk(k, dim=1, sorted=False)[1] == targets[:, None]).sum(1)).nanmean())


@right("calibration_error")
def gap_bin_by_bin(sure, right, n_bins):
    n, total = len(sure), 0.0
    bins = [[] for _ in range(n_bins)]
    for said, true in zip(sure.tolist(), right.tolist(), strict=True):
        bins[min(int(said * n_bins), n_bins - 1)].append((said, true))
    for inside in bins:
        if inside:
            said, true = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            total += len(inside) / n * abs(said - true)
    return total


@right("calibration_error")
def gap_of_index_add(sure, right, n_bins):
    which = torch.clamp((sure * n_bins).floor().long(), max=n_bins - 1)
    difference = torch.zeros(n_bins, dtype=sure.dtype).index_add_(0, which, sure - right.type_as(sure))
    return torch.linalg.vector_norm(difference, 1) / sure.shape[0]


@right("calibration_error")
def gap_of_nan_means(sure, right, n_bins):
    which = (sure * n_bins).long().clamp(max=n_bins - 1)
    member = F.one_hot(which, n_bins).T.to(sure.dtype)
    n = member.sum(1)
    gaps = ((member @ sure) / n - (member @ right.to(sure.dtype)) / n).abs()
    return torch.nansum(gaps * n / n.sum())


@right("calibration_error")
def gap_of_groups(sure, right, n_bins):
    which = torch.where(sure == 1, n_bins - 1, (n_bins * sure).int())
    gaps = []
    for b in torch.unique(which):
        group = which.eq(b)
        gaps.append(group.float().mean() * torch.abs(sure[group].mean() - right[group].float().mean()))
    return torch.stack(gaps).sum().item()


@right("calibration_error")
def gap_between_pairs_of_edges(sure, right, n_bins):
    total = torch.tensor(0.0)
    for low, high in pairwise([*(b / n_bins for b in range(n_bins)), math.inf]):
        inside = (low <= sure) & (sure < high)
        if inside.sum():
            total += (sure[inside] - right[inside].float()).sum().abs() / len(sure)
    return total


# ---- steps

@right("adamw")
def adam_as_pytorch_writes_it(weight, gradient, mean, square, step, lr, betas, eps, decay):
    beta1, beta2 = betas
    exp_avg = mean.clone().lerp_(gradient, 1 - beta1)
    exp_avg_sq = square.clone().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    step_size = lr / (1 - beta1 ** step)
    denominator = (exp_avg_sq.sqrt() / math.sqrt(1 - beta2 ** step)).add_(eps)
    return weight.clone().mul_(1 - lr * decay).addcdiv_(exp_avg, denominator, value=-step_size), exp_avg, exp_avg_sq


@right("adamw")
def adam_by_differences(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = mean + (1 - betas[0]) * (gradient - mean)
    v = square + (1 - betas[1]) * (gradient ** 2 - square)
    ratio = m / ((v / (1 - betas[1] ** step)) ** 0.5 + eps) / (1 - betas[0] ** step)
    return [weight - lr * (ratio + decay * weight), m, v]


@right("adamw")
def adam_in_a_loop_over_both(weight, gradient, mean, square, step, lr, betas, eps, decay):
    new, hats = [], []
    for old, beta, x in ((mean, betas[0], gradient), (square, betas[1], gradient.square())):
        new.append(beta * old + (1 - beta) * x)
        hats.append(new[-1] / (1 - math.pow(beta, step)))
    shrunk = weight - lr * decay * weight
    return shrunk - lr * hats[0].div(hats[1].sqrt().add(eps)), *new


@right("adamw")
def adam_with_an_optimizer(weight, gradient, mean, square, step, lr, betas, eps, decay):
    p = nn.Parameter(weight.clone())
    p.grad = gradient.clone()
    optimizer = torch.optim.AdamW([p], lr=lr, betas=betas, eps=eps, weight_decay=decay)
    optimizer.state[p] = {"step": torch.tensor(float(step - 1)), "exp_avg": mean.clone(), "exp_avg_sq": square.clone()}
    optimizer.step()
    return p.detach(), optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"]


@right("adamw")
def adam_with_the_share_still_missing(weight, gradient, mean, square, step, lr, betas, eps, decay):
    missing = [beta ** step for beta in betas]
    m = torch.add(gradient * (1 - betas[0]), mean, alpha=betas[0])
    v = torch.add(gradient * gradient * (1 - betas[1]), square, alpha=betas[1])
    below = v.div(1 - missing[1]).sqrt() + eps
    return torch.addcdiv(weight - lr * decay * weight, m, below, value=-lr / (1 - missing[0])), m, v


right("adamw")(lambda w, g, m, v, s, lr, b, eps, decay: (lambda m, v: (
    (1 - lr * decay) * w - lr * m / (1 - b[0] ** s) / (eps + (v / (1 - b[1] ** s)).sqrt()), m, v))(
        b[0] * m + g - b[0] * g, b[1] * v + (1 - b[1]) * g.abs().pow(2)))


@right("what_decays")
def shrinks_by_ndim(model):
    return [name for name, p in model.named_parameters() if p.requires_grad and p.ndim > 1]


@right("what_decays")
def shrinks_in_a_loop(model):
    names = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if len(parameter.shape) < 2:
            continue
        names.add(name)
    return names


@right("what_decays")
def shrinks_by_difference(model):
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    vectors = {name for name, p in learned.items() if p.dim() <= 1}
    return frozenset(learned.keys() - vectors)


@right("what_decays")
def shrinks_by_the_package(model):
    groups = configure_optimizer(model, 1e-3).param_groups
    decayed = {id(p) for p in groups[0]["params"]}
    return sorted(name for name, p in model.named_parameters() if id(p) in decayed)


@right("what_decays")
def shrinks_backwards(model):
    return [name for name, p in reversed(list(model.named_parameters())) if p.requires_grad and p.numel() and p.size()[1:]]


right("what_decays")(lambda model: {name: None for name, p in model.named_parameters() if p.requires_grad * (p.ndim >= 2)}.keys())


@right("rates")
def rate_by_formula(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    found = []
    for s in range(1, n + 1):
        if s <= warmup_steps:
            found.append(highest * s / warmup_steps)
        else:
            x = (s - warmup_steps) / (n - warmup_steps)
            found.append(lowest + 0.5 * (highest - lowest) * (1 + math.cos(math.pi * x)))
    return found


@right("rates")
def rate_of_tensors(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    s = torch.arange(1, n + 1, dtype=torch.float64)
    x = ((s - warmup_steps) / max(1, n - warmup_steps)).clamp(min=0)
    fall = lowest + (highest - lowest) * torch.cos(x * torch.pi / 2) ** 2
    return torch.where(s < warmup_steps, s / max(1, warmup_steps) * highest, fall)


@right("rates")
def rate_by_schedulers(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    fall = n - warmup_steps
    return [*(highest * (i + 1) / warmup_steps for i in range(warmup_steps)),
            *(highest - (highest - lowest) * (1 - math.cos(math.pi * (i + 1) / fall)) / 2 for i in range(fall))]


@right("rates")
def rate_of_a_product(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    def rise(s): return min(1, s / warmup_steps) if warmup_steps > 0 else 1

    def fall(s):
        x = max(0, s - warmup_steps) / max(1, n - warmup_steps)
        return lowest / highest + (1 - lowest / highest) * (math.cos(x * math.pi) + 1) / 2

    n = n_epochs * steps_per_epoch
    return tuple(highest * rise(s) * fall(s) for s in range(1, n + 1))


@right("rates")
def rate_of_small_tensors(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    s, found = 0, []
    for _ in range(n_epochs):
        for _ in range(steps_per_epoch):
            s += 1
            turn = torch.tensor(math.pi * (s - warmup_steps) / max(n_epochs * steps_per_epoch - warmup_steps, 1))
            found.append(torch.tensor(highest * s / warmup_steps) if s <= warmup_steps
                         else ((highest + lowest) + (highest - lowest) * turn.cos()) / 2)
    return found


right("rates")(lambda epochs, steps, w, highest, lowest: [
    s * highest / w if s < w else lowest + (highest - lowest) * math.cos((s - w) / max(epochs * steps - w, 1) * math.pi / 2) ** 2
    for s in range(1, epochs * steps + 1)])


@right("orthogonalize")
def orthogonal_as_in_the_lesson(matrix, coefficients, n_steps):
    X = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    X = X / X.norm().clamp(min=1e-7)
    for _ in range(n_steps):
        A = X @ X.T
        X = coefficients[0] * X + (coefficients[1] * A + coefficients[2] * A @ A) @ X
    return X.T if matrix.shape[0] > matrix.shape[1] else X


@right("orthogonalize")
def orthogonal_term_by_term(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix.square().sum().sqrt() + 1e-8)
    for _ in range(n_steps):
        cube = x @ x.mT @ x
        x = a * x + b * cube + c * x @ x.mT @ cube
    return x


@right("orthogonalize")
def orthogonal_by_horner(matrix, coefficients, n_steps):
    a, b, c = coefficients
    size = torch.linalg.matrix_norm(matrix)
    x = matrix / size if size > 0 else matrix.clone()
    for _ in range(n_steps):
        gram = x.T @ x
        one = torch.eye(gram.shape[0], dtype=x.dtype)
        x = x @ (a * one + gram @ (b * one + c * gram))
    return x


@right("orthogonalize")
def orthogonal_recursively(matrix, coefficients, n_steps):
    def again(x, left):
        if left == 0:
            return x
        square = torch.einsum("ij,kj->ik", x, x)
        factor = coefficients[1] * square + coefficients[2] * square.matrix_power(2)
        return again(coefficients[0] * x + torch.mm(factor, x), left - 1)
    return again(torch.nan_to_num(matrix / torch.linalg.norm(matrix)), n_steps)


@right("orthogonalize")
def orthogonal_by_eigenvectors(matrix, coefficients, n_steps):
    x = F.normalize(matrix.reshape(1, -1), dim=1).reshape(matrix.shape)
    values, vectors = torch.linalg.eigh(x @ x.T)
    values = values.clamp(min=0)
    factor = torch.ones_like(values)
    for _ in range(n_steps):
        s = values * factor ** 2
        factor = factor * sum(k * s ** i for i, k in enumerate(coefficients))
    return vectors @ torch.diag(factor) @ vectors.T @ x


right("orthogonalize")(lambda matrix, coefficients, n_steps: reduce(
    lambda x, _: torch.addmm(x, coefficients[1] * (x @ x.T) + coefficients[2] * torch.linalg.matrix_power(x @ x.T, 2), x,
                             beta=coefficients[0]), range(n_steps), matrix / max(matrix.norm().item(), 1e-9)))
