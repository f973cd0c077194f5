"""Wrong solutions of exercises, in other words than the museum's, and what must be in the answer."""

import codecs
import math
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class Wrong(NamedTuple):
    exercise: str
    solution: Callable
    words: str   # that name the mistake; "": it is enough to hear where it is


WRONG: list[Wrong] = []


def wrong(exercise: str, words: str = "") -> Callable:
    "A decorator: this solution is wrong."
    def enter(solution: Callable) -> Callable:
        WRONG.append(Wrong(exercise, solution, words))
        return solution
    return enter


# ---- softmax

@wrong("softmax", "columns sum to one")
def softmax_dim0_in_tables(x):
    if x.ndim == 1:
        return x.exp() / x.exp().sum()
    shifted = x - x.max(dim=-2, keepdim=True).values
    return shifted.exp() / shifted.exp().sum(dim=-2, keepdim=True)


@wrong("softmax", "all your weights together")
def softmax_total(x):
    e = torch.exp(x - torch.max(x))
    return e / torch.sum(e)


@wrong("softmax", "whole tensor")
def softmax_global_max(x):
    z = torch.exp(x - torch.max(x))
    return z / z.sum(dim=-1, keepdim=True)


@wrong("softmax", "overflow")
def softmax_naive(x):
    powers = math.e ** x
    return powers / powers.sum(-1, keepdim=True)


@wrong("softmax", "sum to one")
def softmax_forgot_division(x):
    m, _ = x.max(-1, keepdim=True)
    return torch.exp(x - m)


@wrong("softmax", "minus")
def softmax_negative(x):
    return torch.softmax(-x, dim=-1)


@wrong("softmax", "logarithms")
def softmax_logs(x):
    return x - torch.logsumexp(x, -1, keepdim=True)


@wrong("softmax", "stops with")
def softmax_misspelt(x):
    return torch.sofmax(x, dim=-1)


@wrong("softmax", "return")
def softmax_prints(x):
    e = x.exp()
    e = e / e.sum(-1, keepdim=True)


@wrong("softmax", "tuple")
def softmax_two_things(x):
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e, e / e.sum(-1, keepdim=True)


@wrong("softmax", "yield")
def softmax_generator(x):
    for row in x:
        yield row.exp() / row.exp().sum()


@wrong("softmax", "changes its first input")
def softmax_in_place(x):
    x.sub_(x.amax(-1, keepdim=True)).exp_()
    return x / x.sum(-1, keepdim=True)


@wrong("softmax", "gradient")
def softmax_numpy(x):
    values = x.detach().numpy()
    e = torch.from_numpy(values - values.max(-1, keepdims=True)).exp()
    return e / e.sum(-1, keepdim=True)


@wrong("softmax")
def softmax_epsilon(x):
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / (e.sum(-1, keepdim=True) + 0.01)


@wrong("softmax")
def softmax_temperature(x):
    return torch.softmax(x / math.sqrt(x.shape[-1]), -1)


@wrong("softmax", "mean")
def softmax_mean(x):
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / e.mean(-1, keepdim=True)


@wrong("softmax")
def softmax_rounded(x):
    return torch.softmax(x, -1).round(decimals=3)


@wrong("softmax")
def softmax_only_two(x):
    return torch.stack([1 / (1 + (x[..., 1] - x[..., 0]).exp()), 1 / (1 + (x[..., 0] - x[..., 1]).exp())], -1)


@wrong("softmax", "never ends")
def softmax_endless(x):
    while x.sum() != 12345.678:
        pass
    return x


@wrong("softmax", "float64")
def softmax_always_single(x):
    out = torch.zeros(x.shape)
    out[...] = torch.softmax(x, -1)
    return out


# ---- attention

@wrong("attention", "square root of E")
def attention_divided_by_d(query, key, value, mask=None):
    d_k = query.size(-1)
    scores = torch.matmul(query, key.transpose(-1, -2)) / d_k
    if mask is not None:
        scores = scores.masked_fill(mask == 0, float("-inf"))
    return torch.nan_to_num(F.softmax(scores, dim=-1)) @ value


@wrong("attention", "not divide")
def attention_unscaled(query, key, value, mask=None):
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key)
    if mask is not None:
        scores = scores.masked_fill(mask == 0, float("-inf"))
    return torch.einsum("bhqk,bhkd->bhqd", F.softmax(scores, dim=-1).nan_to_num(0), value)


@wrong("attention", "upside down")
def attention_inverted(query, key, value, mask=None):
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if mask is not None:
        scores[mask.expand_as(scores)] = -torch.inf
    return scores.softmax(-1).nan_to_num() @ value


@wrong("attention", "nowhere gets NaN")
def attention_no_guard(query, key, value, mask=None):
    scores = query @ key.mT / query.shape[-1] ** 0.5
    bias = torch.zeros_like(scores)
    if mask is not None:
        bias = bias.masked_fill(mask.logical_not(), -math.inf)
    return (scores + bias).softmax(-1) @ value


@wrong("attention", "mean of everything")
def attention_finfo(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) @ value


@wrong("attention", "two things")
def attention_two_mistakes(query, key, value, mask=None):
    scores = query @ key.mT
    weights = torch.softmax(scores, dim=-2)
    return weights @ value


@wrong("attention", "mask after softmax")
def attention_weights_times_mask(query, key, value, mask=None):
    weights = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)
    if mask is not None:
        weights = torch.where(mask, weights, torch.zeros(()))
    return weights @ value


@wrong("attention", "ignore the mask")
def attention_forgot_assignment(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores.masked_fill(~mask, -torch.inf)     # the result is thrown away
    return scores.softmax(-1) @ value


@wrong("attention", "return the weights")
def attention_weights_only(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return torch.softmax(scores, dim=-1)


@wrong("attention", "tuple")
def attention_with_weights(query, key, value, mask=None):
    weights = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1)
    return weights @ value, weights


@wrong("attention", "stops with")
def attention_without_transpose(query, key, value, mask=None):
    scores = query @ key / math.sqrt(query.shape[-1])
    return scores.softmax(-1) @ value


@wrong("attention", "stops with")
def attention_three_dimensions(query, key, value, mask=None):
    scores = torch.bmm(query, key.transpose(1, 2)) / math.sqrt(query.shape[-1])
    return torch.bmm(scores.softmax(-1), value)


@wrong("attention", "stops with")
def attention_without_a_mask(query, key, value):
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1) @ value


@wrong("attention", "mask")
def attention_additive(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return torch.softmax(scores if mask is None else scores + mask.float(), -1) @ value


@wrong("attention")
def attention_soft_hiding(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores - 5 * (~mask).float()
    return torch.softmax(scores, -1) @ value


@wrong("attention", "over the heads")
def attention_dim_one(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return F.softmax(scores, dim=1) @ value


@wrong("attention", "exchanged query and key")
def attention_keys_first(query, key, value, mask=None):
    return torch.softmax(key @ query.mT / math.sqrt(query.shape[-1]), -1) @ value


@wrong("attention", "number of keys")
def attention_by_length(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(key.shape[2])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).nan_to_num() @ value


@wrong("attention", "number of queries")
def attention_by_queries(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.shape[2])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).nan_to_num() @ value


@wrong("attention", "sum to one")
def attention_relu(query, key, value, mask=None):
    return torch.relu(query @ key.mT / math.sqrt(query.shape[-1])) @ value


@wrong("attention", "gradient")
def attention_no_grad(query, key, value, mask=None):
    with torch.no_grad():
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1).nan_to_num() @ value


@wrong("attention", "float64")
def attention_buffer(query, key, value, mask=None):
    out = torch.zeros(*query.shape)
    for b in range(query.shape[0]):
        scores = query[b] @ key[b].mT / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        out[b] = scores.softmax(-1).nan_to_num() @ value[b]
    return out


# ---- causal mask

@wrong("causal_mask", "future")
def causal_diagonal_one(n_queries, n_keys):
    return torch.tril(torch.ones(n_queries, n_keys), diagonal=1 + n_keys - n_queries).bool()


@wrong("causal_mask", "itself")
def causal_strict(n_queries, n_keys):
    return torch.arange(n_keys) < torch.arange(n_keys - n_queries, n_keys)[:, None]


@wrong("causal_mask", "boolean")
def causal_floats(n_queries, n_keys):
    return torch.tril(torch.ones(n_queries, n_keys), diagonal=n_keys - n_queries)


@wrong("causal_mask", "boolean")
def causal_ints(n_queries, n_keys):
    return torch.ones(n_queries, n_keys, dtype=torch.int).tril(n_keys - n_queries)


@wrong("causal_mask", "Shift the diagonal")
def causal_lists(n_queries, n_keys):
    return torch.tensor([[s <= t for s in range(n_keys)] for t in range(n_queries)])


@wrong("causal_mask", "turn it round")
def causal_for_masked_fill(n_queries, n_keys):
    return torch.triu(torch.ones(n_queries, n_keys, dtype=torch.bool), diagonal=n_keys - n_queries + 1)


@wrong("causal_mask", "row for each key")
def causal_square(n_queries, n_keys):
    return torch.ones(n_keys, n_keys).tril() == 1


@wrong("causal_mask", "upside down")
def causal_exchanged(n_queries, n_keys):
    return (torch.arange(n_keys)[:, None] <= torch.arange(n_keys - n_queries, n_keys)[None, :])


@wrong("causal_mask", "shape")
def causal_with_batch(n_queries, n_keys):
    return torch.ones(1, 1, n_queries, n_keys, dtype=torch.bool).tril(n_keys - n_queries)


@wrong("causal_mask", "tensor")
def causal_plain_lists(n_queries, n_keys):
    return [[s <= t + n_keys - n_queries for s in range(n_keys)] for t in range(n_queries)]


@wrong("causal_mask", "hides nothing")
def causal_all(n_queries, n_keys):
    return torch.ones(n_queries, n_keys) > 0


@wrong("causal_mask")
def causal_window(n_queries, n_keys):
    distance = torch.arange(n_keys - n_queries, n_keys)[:, None] - torch.arange(n_keys)
    return (distance >= 0) & (distance < 3)


# ---- many heads

class Base(nn.Module):
    "What the wrong modules share."

    def __init__(self, d_model, n_heads, dropout):
        nn.Module.__init__(self)
        self.h, self.p = n_heads, dropout
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)

    def cut(self, x):
        return x.reshape(x.shape[0], x.shape[1], self.h, -1).permute(0, 2, 1, 3)

    def weights(self, x, mask):
        q, k = self.cut(self.query(x)), self.cut(self.key(x))
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~(mask.unsqueeze(-3) if mask.ndim == 3 else mask), -torch.inf)
        return F.dropout(scores.softmax(-1), self.p, self.training)

    def forward(self, x, mask=None):
        heads = self.weights(x, mask) @ self.cut(self.value(x))
        return self.output(heads.permute(0, 2, 1, 3).reshape(x.shape))


@wrong("multi_head", "without transposing back")
class HeadsNotTurnedBack(Base):
    def forward(self, x, mask=None):
        return self.output((self.weights(x, mask) @ self.cut(self.value(x))).reshape(x.shape))


@wrong("multi_head", "mix positions")
class HeadsCutByView(Base):
    def cut(self, x):
        return x.view(x.shape[0], self.h, x.shape[1], -1)


@wrong("multi_head", "H-th number")
class HeadsInterleaved(Base):
    def cut(self, x):
        return x.reshape(x.shape[0], x.shape[1], -1, self.h).permute(0, 3, 1, 2)

    def forward(self, x, mask=None):
        heads = self.weights(x, mask) @ self.cut(self.value(x))
        return self.output(heads.permute(0, 2, 3, 1).reshape(x.shape))


@wrong("multi_head", "`output`")
class HeadsWithoutOutput(Base):
    def forward(self, x, mask=None):
        heads = self.weights(x, mask) @ self.cut(self.value(x))
        return heads.permute(0, 2, 1, 3).reshape(x.shape)


@wrong("multi_head", "`foward`")
class HeadsMisspelt(nn.Module):
    __init__ = Base.__init__

    def foward(self, x, mask=None):
        return x


@wrong("multi_head", "super().__init__()")
class HeadsWithoutSuper(nn.Module):
    def __init__(self, d_model, n_heads, dropout):
        self.query = nn.Linear(d_model, d_model)


@wrong("multi_head", "`value`")
class HeadsWithoutValue(Base):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__(d_model, n_heads, dropout)
        self.values = self.value
        del self.value


@wrong("multi_head", "reshape")
class HeadsByViewAfterTranspose(Base):
    def forward(self, x, mask=None):
        heads = self.weights(x, mask) @ self.cut(self.value(x))
        return self.output(heads.transpose(1, 2).view(x.shape))


@wrong("multi_head", "stops with")
class HeadsWithOneMaskOnly(Base):
    def weights(self, x, mask):
        q, k = self.cut(self.query(x)), self.cut(self.key(x))
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if mask is not None:
            _, _ = mask.shape
            scores = scores.masked_fill(~mask, -torch.inf)
        return F.dropout(scores.softmax(-1), self.p, self.training)


@wrong("multi_head", "width of the model")
class HeadsScaledByD(Base):
    def weights(self, x, mask):
        q, k = self.cut(self.query(x)), self.cut(self.key(x))
        scores = q @ k.mT / math.sqrt(x.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~(mask.unsqueeze(-3) if mask.ndim == 3 else mask), -torch.inf)
        return F.dropout(scores.softmax(-1), self.p, self.training)


@wrong("multi_head", "still dropped")
class HeadsAlwaysDropping(Base):
    def weights(self, x, mask):
        training, self.training = self.training, True
        found = super().weights(x, mask)
        self.training = training
        return found


@wrong("multi_head", "no weight is dropped")
class HeadsWithoutDropout(Base):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__(d_model, n_heads, 0.0)


@wrong("multi_head", "single numbers")
class HeadsDroppingTheOutput(Base):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__(d_model, n_heads, 0.0)
        self.drop = nn.Dropout(dropout)

    def forward(self, x, mask=None):
        return self.drop(super().forward(x, mask))


@wrong("multi_head", "add the input")
class HeadsWithAStream(Base):
    def forward(self, x, mask=None):
        return super().forward(x, mask) + x


@wrong("multi_head", "ignore the mask")
class HeadsBlindToMasks(Base):
    def weights(self, x, mask):
        return super().weights(x, None)


@wrong("multi_head", "nothing else is learned")
class HeadsWithAGate(Base):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__(d_model, n_heads, dropout)
        self.gate = nn.Parameter(torch.ones(n_heads))


@wrong("multi_head", "one and the same")
class HeadsWithSharedLayers(Base):
    def __init__(self, d_model, n_heads, dropout):
        super().__init__(d_model, n_heads, dropout)
        self.query = self.key = self.value


@wrong("multi_head", "two things")
class HeadsTwiceWrong(Base):
    def cut(self, x):
        return x.view(x.shape[0], self.h, x.shape[1], -1)

    def weights(self, x, mask):
        q, k = self.cut(self.query(x)), self.cut(self.key(x))
        scores = q @ k.mT
        if mask is not None:
            scores = scores.masked_fill(~(mask.unsqueeze(-3) if mask.ndim == 3 else mask), -torch.inf)
        return F.dropout(scores.softmax(-1), self.p, self.training)


# ---- shared keys and values

@wrong("grouped_query", "`repeat`")
def grouped_tiled(query, key, value):
    n = query.shape[1] // key.shape[1]
    key, value = torch.cat([key] * n, dim=1), torch.cat([value] * n, dim=1)
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1) @ value


@wrong("grouped_query", "`repeat`")
def grouped_modulo(query, key, value):
    heads = []
    for h in range(query.shape[1]):
        k, v = key[:, h % key.shape[1]], value[:, h % key.shape[1]]
        heads.append(torch.softmax(query[:, h] @ k.mT / math.sqrt(query.shape[-1]), -1) @ v)
    return torch.stack(heads, 1)


@wrong("grouped_query", "stops with")
def grouped_not_repeated(query, key, value):
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1) @ value


@wrong("grouped_query", "first head")
def grouped_broadcast(query, key, value):
    return torch.softmax(query @ key[:, :1].mT / math.sqrt(query.shape[-1]), -1) @ value[:, :1]


@wrong("grouped_query", "average")
def grouped_mean(query, key, value):
    k, v = key.mean(1, keepdim=True), value.mean(1, keepdim=True)
    return torch.softmax(query @ k.mT / math.sqrt(query.shape[-1]), -1) @ v


@wrong("grouped_query", "√E")
def grouped_unscaled(query, key, value):
    n = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(n, 1), value.repeat_interleave(n, 1)
    return torch.softmax(torch.einsum("bhtd,bhsd->bhts", query, key), -1) @ value


@wrong("grouped_query", "shape")
def grouped_not_merged(query, key, value):
    grouped = query.unflatten(1, (key.shape[1], -1))
    weights = torch.softmax(grouped @ key[:, :, None].mT / math.sqrt(query.shape[-1]), -1)
    return weights @ value[:, :, None]


@wrong("grouped_query")
def grouped_in_the_other_order(query, key, value):
    grouped = query.unflatten(1, (-1, key.shape[1])).transpose(1, 2)
    weights = torch.softmax(grouped @ key[:, :, None].mT / math.sqrt(query.shape[-1]), -1)
    return (weights @ value[:, :, None]).flatten(1, 2)


@wrong("grouped_query", "values in turn")
def grouped_mixed(query, key, value):
    n = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(n, 1), value.repeat(1, n, 1, 1)
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1) @ value


@wrong("grouped_query", "gradient")
def grouped_copied(query, key, value):
    n = query.shape[1] // key.shape[1]
    key, value = torch.tensor(key.tolist()).to(key), torch.tensor(value.tolist()).to(value)
    return torch.softmax(query @ key.repeat_interleave(n, 1).mT / math.sqrt(query.shape[-1]), -1) @ value.repeat_interleave(n, 1)


# ---- document and prefix masks

@wrong("document_mask", "documents before")
def documents_forgotten(documents):
    return torch.tril(torch.ones(len(documents), len(documents))).bool()


@wrong("document_mask", "future")
def documents_without_order(documents):
    return documents.unsqueeze(0) == documents.unsqueeze(1)


@wrong("document_mask", "diagonal")
def documents_strictly(documents):
    place = torch.arange(len(documents))
    return (place[:, None] > place) & (documents[:, None] == documents)


@wrong("document_mask")
def documents_by_equal_length(documents):
    n, length = len(documents), int((documents == documents[0]).sum())
    blocks = torch.arange(n) // length
    return torch.ones(n, n).tril().bool() & (blocks[:, None] == blocks)


@wrong("document_mask", "boolean")
def documents_multiplied(documents):
    return torch.tril(torch.ones(len(documents), len(documents))) * (documents[:, None] == documents)


@wrong("document_mask", "turn it round")
def documents_for_masked_fill(documents):
    n = len(documents)
    return torch.triu(torch.ones(n, n), 1).bool() | (documents[:, None] != documents[None])


@wrong("document_mask")
def documents_in_one_row(documents):
    return documents == documents[-1]


@wrong("document_mask", "first document from all others")
def documents_all_of_one_length(documents):
    first = (documents == documents[0]).nonzero()[-1].item() + 1
    mask = torch.ones(len(documents), len(documents), dtype=torch.bool).tril()
    mask[first:, :first] = False
    return mask


@wrong("prefix_mask", "causal too")
def prefix_forgotten(n_prefix, n_positions):
    return torch.tril(torch.ones(n_positions, n_positions, dtype=torch.bool))


@wrong("prefix_mask")
def prefix_square_only(n_prefix, n_positions):
    mask = torch.zeros(n_positions, n_positions, dtype=torch.bool)
    mask[:n_prefix, :n_prefix] = True
    return mask


@wrong("prefix_mask", "open its columns")
def prefix_rows(n_prefix, n_positions):
    mask = torch.tril(torch.ones(n_positions, n_positions)).bool()
    mask[:n_prefix] = True
    return mask


@wrong("prefix_mask", "too long")
def prefix_inclusive(n_prefix, n_positions):
    keys = torch.arange(n_positions)
    return (keys[None] <= keys[:, None]) | (keys <= n_prefix)


@wrong("prefix_mask", "itself")
def prefix_strict(n_prefix, n_positions):
    keys = torch.arange(n_positions)
    return (keys[None] < keys[:, None]) | (keys < n_prefix)


@wrong("prefix_mask", "turn it round")
def prefix_for_masked_fill(n_prefix, n_positions):
    mask = torch.triu(torch.ones(n_positions, n_positions, dtype=torch.bool), 1)
    mask[:, :n_prefix] = False
    return mask


@wrong("prefix_mask")
def prefix_arguments_exchanged(n_positions, n_prefix):
    keys = torch.arange(n_positions)
    return (keys <= keys[:, None]) | (keys < n_prefix)


# ---- byte-pair encoding

@wrong("merge", "three equal numbers")
def merge_all_pairs_found_before(ids, pair, new):
    starts = [i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair]
    skip = {i + 1 for i in starts}
    return [new if i in starts else token for i, token in enumerate(ids) if i in starts or i not in skip]


@wrong("merge", "last number is lost")
def merge_zip(ids, pair, new):
    out, jump = [], False
    for a, b in pairwise(ids):
        if jump:
            jump = False
        elif (a, b) == pair:
            out.append(new)
            jump = True
        else:
            out.append(a)
    return out


@wrong("merge", "only the first")
def merge_index_once(ids, pair, new):
    ids = list(ids)
    for i in range(len(ids) - 1):
        if ids[i] == pair[0] and ids[i + 1] == pair[1]:
            ids[i:i + 2] = [new]
            break
    return ids


@wrong("merge", "either order")
def merge_sorted_pair(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if sorted(ids[i:i + 2]) == sorted(pair):
            out, i = [*out, new], i + 2
        else:
            out, i = [*out, ids[i]], i + 1
    return out


@wrong("merge", "IndexError")
def merge_beyond_the_end(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if ids[i] == pair[0] and ids[i + 1] == pair[1]:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def _merged(ids, pair, new):
    out, i = [], 0
    while i < len(ids):
        if list(ids[i:i + 2]) == list(pair):
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def _learned(words, n, count, best, first=256):
    split, merges = {word: list(word) for word in words}, []
    for step in range(n):
        counts: dict = {}
        for word, ids in split.items():
            for both in pairwise(ids):
                counts[both] = counts.get(both, 0) + count(word, words)
        if not counts:
            break
        pair = best(counts)
        merges.append(pair)
        split = {word: _merged(ids, pair, first + step) for word, ids in split.items()}
    return merges


@wrong("learn", "each word counts once")
def learn_unweighted(words, n_merges):
    return _learned(words, n_merges, lambda word, words: 1, lambda counts: min(counts, key=lambda p: (-counts[p], p)))


@wrong("learn")
def learn_first_found(words, n_merges):
    return _learned(words, n_merges, lambda word, words: words[word], lambda counts: max(counts, key=counts.get))


@wrong("learn", "begin with 257")
def learn_257(words, n_merges):
    return _learned(words, n_merges, lambda word, words: words[word],
                    lambda counts: min(counts, key=lambda p: (-counts[p], p)), first=257)


@wrong("learn", "larger")
def learn_sorted_reverse(words, n_merges):
    return _learned(words, n_merges, lambda word, words: words[word],
                    lambda counts: sorted(counts.items(), key=lambda item: (item[1], item[0]), reverse=True)[0][0])


@wrong("learn", "count once")
def learn_most_common(words, n_merges):
    counts: dict = {}
    for word, often in words.items():
        for i in range(len(word) - 1):
            counts[word[i], word[i + 1]] = counts.get((word[i], word[i + 1]), 0) + often
    return sorted(counts, key=lambda p: (-counts[p], p))[:n_merges]


@wrong("encode", "longest piece")
def encode_greedy(word, merges):
    vocabulary = {bytes([i]): i for i in range(256)}
    names = [bytes([i]) for i in range(256)]
    for left, right in merges:
        names.append(names[left] + names[right])
        vocabulary[names[-1]] = len(names) - 1
    ids, start = [], 0
    while start < len(word):
        end = len(word)
        while word[start:end] not in vocabulary:
            end -= 1
        ids.append(vocabulary[word[start:end]])
        start = end
    return ids


@wrong("encode", "stop at the first")
def encode_while(word, merges):
    ids, n = list(word), 0
    while n < len(merges) and merges[n] in list(pairwise(ids)):
        ids = _merged(ids, merges[n], 256 + n)
        n += 1
    return ids


@wrong("encode", "learned last")
def encode_backwards(word, merges):
    ids = list(word)
    for n, pair in list(enumerate(merges))[::-1]:
        ids = _merged(ids, pair, 256 + n)
    return ids


@wrong("encode")
def encode_off_by_one(word, merges):
    ids = list(word)
    for n, pair in enumerate(merges):
        ids = _merged(ids, pair, 257 + n)
    return ids


@wrong("stream", "half a character")
def stream_default(pieces):
    return [str(piece, "utf-8", "replace") for piece in pieces]


@wrong("stream", "thrown away")
def stream_try(pieces):
    out = []
    for piece in pieces:
        try:
            out.append(piece.decode())
        except UnicodeDecodeError:
            out.append("")
    return out


@wrong("stream", "before the end")
def stream_joined(pieces):
    out = [""] * len(pieces)
    out[-1] = b"".join(pieces).decode("utf8")
    return out


@wrong("stream", "wait until all bytes")
def stream_buffer_try(pieces):
    out, buffer = [], b""
    for piece in pieces:
        buffer += piece
        try:
            text = buffer.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        else:
            buffer = b""
        out.append(text)
    return out


@wrong("stream", "one for each token")
def stream_yield_like(pieces):
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [text for piece in pieces if (text := decoder.decode(piece))]


# ---- rotary positions

@wrong("rotate", "other way round")
def rotate_transposed_matrix(x, angles):
    matrix = torch.stack([torch.stack([angles.cos(), angles.sin()], -1), torch.stack([-angles.sin(), angles.cos()], -1)], -2)
    points = torch.stack(x.chunk(2, -1), -1)                                        # (B, H, T, E/2, 2)
    return torch.einsum("tirc,bhtic->bhtir", matrix, points).transpose(-1, -2).flatten(-2)


@wrong("rotate", "neighbours")
def rotate_as_complex(x, angles):
    points = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(points * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


@wrong("rotate", "new first one")
def rotate_loop_written_over(x, angles):
    x, half = x.clone(), x.shape[-1] // 2
    for i in range(half):
        x[..., i] = x[..., i] * angles[:, i].cos() - x[..., i + half] * angles[:, i].sin()
        x[..., i + half] = x[..., i + half] * angles[:, i].cos() + x[..., i] * angles[:, i].sin()
    return x


@wrong("rotate")
def rotate_by_twice_the_angle(x, angles):
    a, b = x.chunk(2, -1)
    cos, sin = (2 * angles).cos(), (2 * angles).sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def turned(x, angles):
    half = x.shape[-1] // 2
    points = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([points.real, points.imag], dim=-1)


@wrong("rotate_piece", "turn the values")
def piece_all_three_alike(query, key, value, inv_freq, n_cached):
    angles = torch.outer(torch.arange(n_cached, n_cached + query.size(2)).to(inv_freq), inv_freq)
    return tuple(turned(x, angles) for x in (query, key, value))


@wrong("rotate_piece", "begin at 0 again")
def piece_table_cut_in_front(query, key, value, inv_freq, n_cached):
    table = torch.arange(n_cached + query.shape[-2]).view(-1, 1) * inv_freq
    angles = table[:query.shape[-2]]
    return turned(query, angles), turned(key, angles), value


@wrong("rotate_piece", "two things. First, your places begin at 0 again")
def piece_as_a_text_of_its_own(query, key, value, inv_freq, n_cached):
    angles = torch.einsum("t,i->ti", torch.arange(query.shape[2]) * 1.0, inv_freq)
    return [turned(x, angles) for x in (query, key, value)]


@wrong("rotate_piece", "only queries are turned")
def piece_keys_as_in_the_cache(query, key, value, inv_freq, n_cached):
    new = query.clone()
    for t in range(query.shape[2]):
        new[:, :, t:t + 1] = turned(query[:, :, t:t + 1], (n_cached + t) * inv_freq[None])
    return new, key, value


@wrong("rotate_piece", "only keys are turned")
def piece_distance_in_the_keys(query, key, value, inv_freq, n_cached):
    steps = [turned(k, (n_cached + t) * inv_freq) for t, k in enumerate(key.unbind(2))]
    return query, torch.stack(steps, 2), value


@wrong("rotate_piece", "all new tokens stand at place n_cached")
def piece_by_what_is_cached(query, key, value, inv_freq, n_cached):
    angles = (n_cached * inv_freq)[None, None, None]
    return turned(query, angles), turned(key, angles), value


@wrong("rotate_piece", "you count from 1")
def piece_by_running_sums(query, key, value, inv_freq, n_cached):
    angles = inv_freq.expand(query.shape[2], -1).cumsum(0) + n_cached * inv_freq
    return turned(query, angles), turned(key, angles), value


@wrong("rotate_piece", "stands at n_cached − 1")
def piece_from_the_last_one_on(query, key, value, inv_freq, n_cached):
    last = n_cached - 1
    angles = torch.linspace(last, last + query.shape[2] - 1, query.shape[2])[:, None].to(inv_freq) * inv_freq
    return turned(query, angles), turned(key, angles), value


@wrong("rotate_piece", "those of the cached tokens")
def piece_of_as_many_as_are_cached(query, key, value, inv_freq, n_cached):
    angles = torch.stack([t * inv_freq for t in range(n_cached)])
    return turned(query, angles), turned(key, angles), value


@wrong("rotate_piece", "by the last place")
def piece_with_one_query_in_mind(query, key, value, inv_freq, n_cached):
    angles = torch.arange(n_cached, n_cached + key.shape[2])[:, None] * inv_freq
    return turned(query, angles[-1]), turned(key, angles), value


@wrong("rotate_piece", "no place is in your angle")
def piece_without_places(query, key, value, inv_freq, n_cached):
    return turned(query, inv_freq.view(1, 1, 1, -1)), turned(key, inv_freq.view(1, 1, 1, -1)), value


@wrong("rotate_piece", "keys turn the other way round, queries do not")
def piece_conjugated_key(query, key, value, inv_freq, n_cached):
    angles = (torch.arange(query.shape[2]) + n_cached)[:, None] * inv_freq
    half = len(inv_freq)
    points = torch.complex(key[..., :half], key[..., half:]) * torch.polar(torch.ones_like(angles), angles).conj()
    return turned(query, angles), torch.cat([points.real, points.imag], -1), value


@wrong("rotate_piece", "you count texts")
def piece_of_the_first_dimension(query, key, value, inv_freq, n_cached):
    angles = torch.arange(n_cached, n_cached + len(query)).unsqueeze(-1) * inv_freq
    return turned(query, angles), turned(key, angles), value


@wrong("rotate_piece", "add n_cached to the angle")
def piece_with_an_offset(query, key, value, inv_freq, n_cached):
    angles = torch.arange(query.shape[2])[:, None] * inv_freq
    return turned(query, n_cached + angles), turned(key, n_cached + angles), value


@wrong("rotate_piece", "only lent")
def piece_written_into_what_is_lent(query, key, value, inv_freq, n_cached):
    angles = torch.arange(n_cached, n_cached + query.shape[2])[:, None] * inv_freq
    half = len(inv_freq)
    for x in (query, key):
        a, b = x[..., :half].clone(), x[..., half:].clone()
        x[..., :half], x[..., half:] = a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()
    return query, key, value


@wrong("rotate_piece", "three tensors")
def piece_query_alone(query, key, value, inv_freq, n_cached):
    return turned(query, torch.arange(n_cached, n_cached + query.shape[2])[:, None] * inv_freq)


@wrong("rotate_piece")
def piece_of_scaled_queries(query, key, value, inv_freq, n_cached):
    angles = torch.arange(n_cached, n_cached + query.shape[2])[:, None] * inv_freq
    return turned(query, angles) / query.shape[-1] ** 0.5, turned(key, angles), value


@wrong("rotate_piece")
def piece_in_a_short_table(query, key, value, inv_freq, n_cached):
    angles = (torch.arange(128)[:, None] * inv_freq)[n_cached:n_cached + query.shape[2]]
    return turned(query, angles), turned(key, angles), value


@wrong("to_halves", "back instead of there")
def halves_undone(weight, n_heads):
    heads = weight.unflatten(0, (n_heads, -1))
    first, second = heads.chunk(2, dim=1)
    return torch.stack([first, second], dim=2).reshape(weight.shape)


@wrong("to_halves", "mixes the heads")
def halves_of_the_whole(weight, n_heads):
    order = [*range(0, len(weight), 2), *range(1, len(weight), 2)]
    return weight[order]


@wrong("to_halves", "odd numbers")
def halves_odd_first(weight, n_heads):
    pairs = weight.view(n_heads, -1, 2, weight.shape[1])
    return torch.cat([pairs[:, :, 1], pairs[:, :, 0]], dim=1).reshape(weight.shape)


@wrong("slopes", "any number of heads")
def slopes_by_the_formula(n_heads):
    ratio = 2 ** (-8 / n_heads)
    return ratio ** torch.arange(1, n_heads + 1)


@wrong("slopes", "count from h = 0")
def slopes_from_one_half_too_late(n_heads):
    n = 2 ** math.floor(math.log2(n_heads))
    first = [2 ** (-8 / n * i) for i in range(n)]
    second = [2 ** (-4 / n * i) for i in range(2 * n)][::2]
    return torch.tensor(first + second[:n_heads - n])


@wrong("slopes", "sort the slopes")
def slopes_steepest_first(n_heads):
    n = 2 ** math.floor(math.log2(n_heads))
    both = [2 ** (-8 * (i + 1) / n) for i in range(n)] + [2 ** (-4 * (i + 1) / n) for i in range(0, 2 * n, 2)][:n_heads - n]
    return torch.tensor(sorted(both, reverse=True))


@wrong("slopes", "halve from head to head")
def slopes_of_the_example(n_heads):
    n = 2 ** math.floor(math.log2(n_heads))
    return torch.tensor([0.5 ** (i + 1) for i in range(n)] + [0.5 ** (i + 1) for i in range(0, 2 * n, 2)][:n_heads - n])


@wrong("slopes", "every second one")
def slopes_filled_up_without_gaps(n_heads):
    n = 2 ** math.floor(math.log2(n_heads))
    return torch.tensor([2 ** (-8 * i / n) for i in range(1, n + 1)] + [2 ** (-4 * i / n) for i in range(1, n_heads - n + 1)])


@wrong("slopes", "are there already")
def slopes_filled_up_with_themselves(n_heads):
    n = 2 ** math.floor(math.log2(n_heads))
    more = [2 ** (-4 * i / n) for i in range(2, 2 * n + 1, 2)]
    return torch.tensor([2 ** (-8 * i / n) for i in range(1, n + 1)] + more[:n_heads - n])


@wrong("slopes", "cut the slopes of the next higher power")
def slopes_of_the_next_power(n_heads):
    n = 2 ** math.ceil(math.log2(n_heads))
    return torch.pow(2.0, -8 * torch.arange(1, n + 1) / n)[:n_heads]


@wrong("slopes", "grow from head to head")
def slopes_flat_first(n_heads):
    n = 2 ** math.floor(math.log2(n_heads))
    first = [2 ** (-8 * i / n) for i in range(n, 0, -1)]
    return torch.tensor(first + [2 ** (-4 * i / n) for i in range(2 * n, 0, -1)][::2][:n_heads - n])


@wrong("slopes", "negative")
def slopes_to_be_added(n_heads):
    n = 2 ** math.floor(math.log2(n_heads))
    more = [-(2 ** (-4 * i / n)) for i in range(1, 2 * n, 2)][:n_heads - n]
    return torch.tensor([-(2 ** (-8 * i / n)) for i in range(1, n + 1)] + more)


@wrong("slopes", "list")
def slopes_in_a_list(n_heads):
    n = 2 ** math.floor(math.log2(n_heads))
    return [2 ** (-8 * i / n) for i in range(1, n + 1)] + [2 ** (-4 * i / n) for i in range(1, 2 * n, 2)][:n_heads - n]


# ---- feed-forward layers

@wrong("feed_forward", "nothing is bent")
def feed_forward_one_matrix(x, up, down):
    return x @ (down @ up).T


@wrong("feed_forward", "bend the output")
def feed_forward_relu_last(x, up, down):
    out = torch.einsum("...d,fd,ef->...e", x, up, down)
    return torch.maximum(out, torch.zeros_like(out))


@wrong("feed_forward", "bend the input")
def feed_forward_clamped_input(x, up, down):
    return F.linear(F.linear(x.clamp(min=0), up), down)


@wrong("feed_forward", "second time")
def feed_forward_loop_over_layers(x, up, down):
    for weight in (up, down):
        x = torch.relu(torch.matmul(x, weight.transpose(0, 1)))
    return x


@wrong("feed_forward", "GELU")
def feed_forward_gelu_by_hand(x, up, down):
    hidden = F.linear(x, up)
    return F.linear(0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))), down)


@wrong("feed_forward", "as they lie")
def feed_forward_for_in_out_weights(x, up, down):
    return torch.einsum("...f,fd->...d", torch.einsum("...d,df->...f", x, up).clamp(min=0), down)


@wrong("feed_forward", "happen to fit")
def feed_forward_names_mixed_up(x, up, down):
    first, second = down.T, up.T
    return F.linear(F.relu(F.linear(x, first)), second)


@wrong("feed_forward", "never use `down`")
def feed_forward_tied(x, up, down):
    hidden = torch.where(x @ up.T > 0, x @ up.T, 0)
    return torch.einsum("...f,fd->...d", hidden, up)


@wrong("feed_forward", "you add x")
def feed_forward_residual(x, up, down):
    out = x.clone()
    for f in range(up.shape[0]):
        out = out + (x @ up[f]).relu().unsqueeze(-1) * down[:, f]
    return out


@wrong("feed_forward", "mix the positions")
def feed_forward_mean_of_the_text(x, up, down):
    out = F.relu(x @ up.T) @ down.T
    return torch.ones_like(out) * out.mean(dim=-2, keepdim=True) if x.dim() > 1 else out


@wrong("feed_forward", "hundredth")
def feed_forward_leak(x, up, down):
    hidden = x @ up.T
    return torch.max(hidden, 0.01 * hidden) @ down.T


@wrong("feed_forward", "two things")
def feed_forward_silu_and_residual(x, up, down):
    hidden = F.linear(x, up)
    return F.linear(hidden / (1 + torch.exp(-hidden)), down) + x


@wrong("feed_forward", "Is there a `return`?")
def feed_forward_no_return(x, up, down):
    hidden = F.relu(F.linear(x, up))
    F.linear(hidden, down)


@wrong("feed_forward", "should be 2 at place 0")
def feed_forward_at_most_one(x, up, down):
    return F.linear(F.linear(x, up).clamp(0, 1), down)


@wrong("feed_forward")
def feed_forward_only_first_text(x, up, down):
    hidden = F.relu(F.linear(x, up))
    return F.linear(hidden[:1] if x.dim() == 3 else hidden, down)


# ---- gated layers

@wrong("swiglu", "gate and up are exchanged")
def swiglu_second_half_bent(x, gate, up, down):
    a, b = F.linear(x, torch.cat([gate, up])).chunk(2, -1)
    return F.linear(a * F.silu(b), down)


@wrong("swiglu", "both halves are bent")
def swiglu_bend_before_the_cut(x, gate, up, down):
    a, b = F.silu(F.linear(x, torch.cat([gate, up]))).chunk(2, -1)
    return F.linear(a * b, down)


@wrong("swiglu", "bend the product")
def swiglu_late(x, gate, up, down):
    hidden = torch.einsum("...d,fd->...f", x, gate) * torch.einsum("...d,fd->...f", x, up)
    return (hidden * torch.sigmoid(hidden)) @ down.t()


@wrong("swiglu", "sigmoid (that is GLU)")
def swiglu_glu(x, gate, up, down):
    return F.linear(F.glu(F.linear(x, torch.cat([up, gate])), dim=-1), down)


@wrong("swiglu", "ReGLU")
def swiglu_where(x, gate, up, down):
    opened = x @ gate.T
    return torch.where(opened > 0, opened * (x @ up.T), torch.zeros_like(opened)) @ down.T


@wrong("swiglu", "GeGLU")
def swiglu_by_erf(x, gate, up, down):
    g = x @ gate.T
    return (g * (1 + torch.erf(g / 2 ** 0.5)) / 2 * (x @ up.T)) @ down.T


@wrong("swiglu", "add the halves")
def swiglu_sum(x, gate, up, down):
    return torch.stack([F.silu(x @ gate.T), x @ up.T]).sum(0) @ down.T


@wrong("swiglu", "narrow both halves")
def swiglu_two_layers(x, gate, up, down):
    gates = F.linear(F.silu(F.linear(x, gate)), down)
    return gates * F.linear(F.linear(x, up), down)


@wrong("swiglu", "gate is not used")
def swiglu_plain(x, gate, up, down):
    hidden = x @ up.T
    return (hidden.sigmoid() * hidden) @ down.T


@wrong("swiglu", "gate's map is used for both")
def swiglu_copy_and_paste(x, gate, up, down):
    opened = F.silu(F.linear(x, gate))
    numbers = F.linear(x, gate)
    return F.linear(opened * numbers, down)


@wrong("swiglu", "as they lie")
def swiglu_plain_products(x, gate, up, down):
    return torch.matmul(torch.mul(F.silu(torch.matmul(x, gate)), torch.matmul(x, up)), down)


@wrong("swiglu", "turned round: it is 1 / (1 + exp(−x))")
def swiglu_exp_without_minus(x, gate, up, down):
    g = x @ gate.T
    return (g / (1 + g.exp()) * (x @ up.T)) @ down.T


@wrong("swiglu", "two things")
def swiglu_exchanged_and_relu(x, gate, up, down):
    return F.linear(F.linear(x, gate) * F.relu(F.linear(x, up)), down)


@wrong("swiglu", "you return the F hidden units")
def swiglu_wide(x, gate, up, down):
    return F.silu(x @ gate.T).mul(x @ up.T)


@wrong("swiglu")
def swiglu_half(x, gate, up, down):
    return 0.5 * F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


# ---- smaller layers

@wrong("prune", "as large as before")
def prune_masked_down(gate, up, down, keep):
    return gate, up, torch.where(keep, down, torch.zeros_like(down))


@wrong("prune", "as large as before")
def prune_loop_of_zeros(gate, up, down, keep):
    gate, up, down = gate.clone(), up.clone(), down.clone()
    for f in range(len(keep)):
        if not keep[f]:
            gate[f] = 0
            up[f] = 0
            down[:, f] = 0
    return gate, up, down


@wrong("prune", "rows of `down`")
def prune_the_same_for_all(gate, up, down, keep):
    return tuple(weight[keep] for weight in (gate, up, down))


@wrong("prune", "you keep what should go")
def prune_removes_the_marked(gate, up, down, keep):
    stay = [f for f, gone in enumerate(keep.tolist()) if not gone]
    return gate[stay], up[stay], down[:, stay]


@wrong("prune", "row numbers")
def prune_index_select(gate, up, down, keep):
    places = keep.int()
    return gate.index_select(0, places), up.index_select(0, places), down.index_select(1, places)


@wrong("prune", "`down` is as it was")
def prune_forgets_down(gate, up, down, keep):
    kept = torch.where(keep)[0]
    return gate.index_select(0, kept), up.index_select(0, kept), down


@wrong("prune", "turned over, as (K, D)")
def prune_rows_of_all_three(gate, up, down, keep):
    return [torch.stack([row for row, stays in zip(rows, keep, strict=True) if stays]) for rows in (gate, up, down.T)]


@wrong("prune", "you keep the first ones")
def prune_cut_off(gate, up, down, keep):
    k = keep.sum().item()
    return gate[:k], up[:k], down[:, :k]


@wrong("prune", "as dropout does")
def prune_like_dropout(gate, up, down, keep):
    share = keep.float().mean()
    return gate[keep], up[keep], down[:, keep] / share


@wrong("prune", "`up` before `gate`")
def prune_in_the_order_of_a_file(gate, up, down, keep):
    new = {"up": up[keep], "gate": gate[keep], "down": down[:, keep]}
    return tuple(new.values())


@wrong("prune", "`gate` is as it was")
def prune_gate_later(gate, up, down, keep):
    return gate, up[keep], down.T[keep].T


@wrong("prune", "the order is gate, up, down")
def prune_stacked(gate, up, down, keep):
    both = torch.cat([up, gate])[keep.repeat(2)]
    return *both.chunk(2), down[:, keep]


@wrong("prune", "you drop one dimension too many")
def prune_squeezes(gate, up, down, keep):
    kept = torch.argwhere(keep).squeeze()
    return gate[kept], up[kept], down[:, kept]


@wrong("prune", "three matrices")
def prune_one_tensor(gate, up, down, keep):
    return torch.cat([gate[keep], up[keep], down[:, keep].T])


@wrong("prune")
def prune_down_folded_up(gate, up, down, keep):
    return gate[keep], 2 * up[keep], down[:, keep]


# ---- norms

@wrong("rms_norm", "length")
def rms_norm_normalize(x, weight, eps):
    return F.normalize(x, dim=-1, eps=1e-12) * weight


@wrong("rms_norm", "length")
def rms_norm_of_the_sum(x, weight, eps):
    total = torch.einsum("...d,...d->...", x, x)
    return x * weight / torch.sqrt(total + eps).unsqueeze(-1)


@wrong("rms_norm", "mean square itself")
def rms_norm_without_root(x, weight, eps):
    power = torch.mean(x * x, dim=-1, keepdim=True)
    return weight * (x / (power + eps))


@wrong("rms_norm", "LayerNorm")
def rms_norm_centred(x, weight, eps):
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred * torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + eps) * weight


@wrong("rms_norm", "standard deviation")
def rms_norm_by_variance(x, weight, eps):
    mean = x.mean(-1, keepdim=True)
    variance = (x * x).mean(-1, keepdim=True) - mean * mean
    return x / torch.sqrt(variance + eps) * weight


@wrong("rms_norm", "ε is forgotten")
def rms_norm_like_a_formula(x, weight, eps):
    rms = x.norm(2, dim=-1, keepdim=True) / x.shape[-1] ** 0.5
    return weight * x / rms


@wrong("rms_norm", "ε stands behind the root")
def rms_norm_late_epsilon(x, weight, eps):
    D = x.size(-1)
    rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * D ** -0.5
    return x / (rms + eps) * weight


@wrong("rms_norm", "over the positions")
def rms_norm_along_the_text(x, weight, eps):
    if x.dim() == 1:
        return F.rms_norm(x, weight.shape, weight, eps)
    turned = x.transpose(-1, -2)
    return F.rms_norm(turned, turned.shape[-1:], None, eps).transpose(-1, -2) * weight


@wrong("rms_norm", "whole tensor")
def rms_norm_flat(x, weight, eps):
    return F.rms_norm(x, x.shape, None, eps) * weight


@wrong("rms_norm", "first dimension")
def rms_norm_dim0(x, weight, eps):
    return torch.stack([row / torch.sqrt((x ** 2).sum(0) / len(x) + eps) for row in x]) * weight


@wrong("rms_norm", "keepdim=True")
def rms_norm_no_keepdim(x, weight, eps):
    return weight * x * (x.square().mean(-1) + eps) ** -0.5


@wrong("rms_norm", "weights are not used")
def rms_norm_unweighed(x, weight, eps):
    return F.rms_norm(x, x.shape[-1:], eps=eps)


@wrong("rms_norm", "1 + weight")
def rms_norm_gemma(x, weight, eps):
    return F.rms_norm(x, x.shape[-1:], weight + 1, eps)


@wrong("rms_norm", "weights come before")
def rms_norm_of_weighted(x, weight, eps):
    y = weight * x
    return F.rms_norm(y, y.shape[-1:], None, eps)


@wrong("rms_norm", "two things")
def rms_norm_late_epsilon_and_weights_added(x, weight, eps):
    return x / ((x ** 2).mean(-1, keepdim=True).sqrt() + eps) + weight


@wrong("rms_norm", "stops with")
def rms_norm_through_numpy(x, weight, eps):
    return torch.from_numpy(x.numpy() / ((x.numpy() ** 2).mean(-1, keepdims=True) + eps) ** 0.5 * weight.numpy())


@wrong("rms_norm")
def rms_norm_half_of_the_numbers(x, weight, eps):
    half = x[..., : (x.shape[-1] + 1) // 2]
    return x / torch.sqrt(half.square().mean(-1, keepdim=True) + eps) * weight


# ---- blocks

@wrong("block", "post-norm")
def block_of_2017(x, attention, feed_forward, attention_norm, feed_forward_norm):
    for layer, norm in ((attention, attention_norm), (feed_forward, feed_forward_norm)):
        x = norm(x + layer(x))
    return x


@wrong("block", "nothing is added")
def block_as_a_chain(x, attention, feed_forward, attention_norm, feed_forward_norm):
    for part in (attention_norm, attention, feed_forward_norm, feed_forward):
        x = part(x)
    return x


@wrong("block", "attention's answer is added to the normed x")
def block_overwrites_x(x, attention, feed_forward, attention_norm, feed_forward_norm):
    x = attention_norm(x)
    x = torch.add(x, attention(x))
    return torch.add(x, feed_forward(feed_forward_norm(x)))


@wrong("block", "two things")
def block_overwrites_x_twice(x, attention, feed_forward, attention_norm, feed_forward_norm):
    x = attention_norm(x)
    x = x + attention(x)
    x = feed_forward_norm(x)
    return x + feed_forward(x)


@wrong("block", "parallel block")
def block_in_parallel(x, attention, feed_forward, attention_norm, feed_forward_norm):
    return sum((x, attention(attention_norm(x)), feed_forward(feed_forward_norm(x))))


@wrong("block", "through one norm")
def block_in_parallel_one_norm(x, attention, feed_forward, attention_norm, feed_forward_norm):
    normed = attention_norm(x)
    return x + torch.stack([layer(normed) for layer in (attention, feed_forward)]).sum(0)


@wrong("block", "`attention_norm` is used twice")
def block_with_a_helper(x, attention, feed_forward, attention_norm, feed_forward_norm):
    def add(stream, layer):
        return stream + layer(attention_norm(stream))
    return add(add(x, attention), feed_forward)


@wrong("block", "norms are exchanged")
def block_zip_mixed_up(x, attention, feed_forward, attention_norm, feed_forward_norm):
    for layer, norm in zip((attention, feed_forward), (feed_forward_norm, attention_norm), strict=True):
        x = x + layer(norm(x))
    return x


@wrong("block", "attention's answer is lost")
def block_residual_saved_once(x, attention, feed_forward, attention_norm, feed_forward_norm):
    residual = x
    x = attention(attention_norm(x)) + residual
    x = feed_forward(feed_forward_norm(x)) + residual
    return x


@wrong("block", "feed_forward comes before attention")
def block_turned_round(x, attention, feed_forward, attention_norm, feed_forward_norm):
    h = x + feed_forward(feed_forward_norm(x))
    return h + attention(attention_norm(h))


@wrong("block", "x is not added")
def block_first_without_stream(x, attention, feed_forward, attention_norm, feed_forward_norm):
    x = attention(attention_norm(x))
    x = x + feed_forward(feed_forward_norm(x))
    return x


@wrong("block", "h is not added")
def block_last_without_stream(x, attention, feed_forward, attention_norm, feed_forward_norm):
    return feed_forward(feed_forward_norm(x + attention(attention_norm(x))))


@wrong("block", "normed at the end")
def block_with_a_last_norm(x, attention, feed_forward, attention_norm, feed_forward_norm):
    h = attention(attention_norm(x)).add(x)
    y = feed_forward(feed_forward_norm(h)).add(h)
    return feed_forward_norm(y)


@wrong("block", "OLMo 2")
def block_norms_behind(x, attention, feed_forward, attention_norm, feed_forward_norm):
    for layer, norm in ((attention, attention_norm), (feed_forward, feed_forward_norm)):
        x = x + norm(layer(x))
    return x


@wrong("block", "changes `x`")
def block_in_place(x, attention, feed_forward, attention_norm, feed_forward_norm):
    x.add_(attention(attention_norm(x)))
    x.add_(feed_forward(feed_forward_norm(x)))
    return x


@wrong("block", "you ask `attention_norm` 2 times")
def block_norms_for_a_print(x, attention, feed_forward, attention_norm, feed_forward_norm):
    shape = attention_norm(x).shape
    h = (x + attention(attention_norm(x))).view(shape)
    return h + feed_forward(feed_forward_norm(h))


@wrong("block", "an operation in place changes what is still needed")
def block_into_its_own_copy(x, attention, feed_forward, attention_norm, feed_forward_norm):
    h = x.clone()
    h += attention(attention_norm(h))
    h += feed_forward(feed_forward_norm(h))
    return h


@wrong("block")
def block_one_text_at_a_time_and_only_one(x, attention, feed_forward, attention_norm, feed_forward_norm):
    text = x[:1] if x.ndim == 3 else x
    text = text + attention(attention_norm(text))
    return text + feed_forward(feed_forward_norm(text))


# ---- norms without weights

@wrong("fold_norm", "you scale the rows")
def fold_diag_on_the_left(norm_weight, linear_weight):
    return torch.diag(norm_weight) @ linear_weight


@wrong("fold_norm", "you scale the rows")
def fold_row_by_row(norm_weight, linear_weight):
    return torch.stack([norm_weight[i] * linear_weight[i] for i in range(len(linear_weight))])


@wrong("fold_norm", "you divide")
def fold_undone(norm_weight, linear_weight):
    return torch.einsum("od,d->od", linear_weight, norm_weight.reciprocal())


@wrong("fold_norm", "1 + weight")
def fold_gemma(norm_weight, linear_weight):
    return linear_weight + linear_weight * norm_weight


@wrong("fold_norm", "as matrices")
def fold_einsum_summed(norm_weight, linear_weight):
    return torch.einsum("od,d->o", linear_weight, norm_weight)


@wrong("fold_norm", "turned over, as (D, out)")
def fold_transposed(norm_weight, linear_weight):
    return torch.stack([linear_weight[:, d] * norm_weight[d] for d in range(len(norm_weight))])


@wrong("fold_norm", "nothing is changed")
def fold_forgets_to_keep_the_result(norm_weight, linear_weight):
    linear_weight.mul(norm_weight)
    return linear_weight


@wrong("fold_norm", "add the norm's weights")
def fold_sum(norm_weight, linear_weight):
    return torch.stack([row + norm_weight for row in linear_weight])


@wrong("fold_norm", "changes `linear_weight`")
def fold_in_a_loop_in_place(norm_weight, linear_weight):
    for d, weight in enumerate(norm_weight):
        linear_weight[:, d] *= weight
    return linear_weight


@wrong("fold_norm", "mean of the norm's weights")
def fold_one_factor(norm_weight, linear_weight):
    return linear_weight * (sum(norm_weight) / len(norm_weight))


@wrong("fold_norm")
def fold_twice_as_much(norm_weight, linear_weight):
    return 2 * linear_weight * norm_weight


# ---- counted weights

@wrong("count_parameters", "you count the table twice, tied or not")
def count_two_tables(V, D, L, H, K, F, tied):
    E = D // H
    return 2 * V * D + D + L * (2 * D + D * E * (2 * H + 2 * K) + 3 * D * F)


@wrong("count_parameters", "`tied` is the wrong way round")
def count_if_tied_adds(V, D, L, H, K, F, tied):
    n = V * D + D + L * D * (2 + 3 * F + 2 * (D // H) * (H + K))
    if tied:
        n += D * V
    return n


@wrong("count_parameters", "K is not used")
def count_as_in_the_books(V, D, L, H, K, F, tied):
    return (1 if tied else 2) * V * D + L * (4 * D**2 + 3 * D * F + 2 * D) + D


@wrong("count_parameters", "each head is as wide as the model")
def count_a_matrix_for_each_head(V, D, L, H, K, F, tied):
    attention = sum(D * D * n for n in (H, K, K, H))
    return V * D * (2 - tied) + L * (attention + 3 * D * F + 2 * D) + D


@wrong("count_parameters", "the output matrix has K heads")
def count_three_of_k(V, D, L, H, K, F, tied):
    width = D // H
    query, key = D * width * H, D * width * K
    return V * D * (2 - tied) + L * (query + 3 * key + 3 * D * F + 2 * D) + D


@wrong("count_parameters", "the output matrix of attention is missing")
def count_q_k_v(V, D, L, H, K, F, tied):
    qkv = D * (H + 2 * K) * (D // H)
    return V * D * (2 - tied) + L * (qkv + 3 * D * F + 2 * D) + D


@wrong("count_parameters", "two matrices in the feed-forward network")
def count_up_and_down(V, D, L, H, K, F, tied):
    E = D // H
    layer = [(H * E, D), (K * E, D), (K * E, D), (D, H * E), (F, D), (D, F), (D, 1), (D, 1)]
    return V * D * (2 - tied) + L * sum(math.prod(shape) for shape in layer) + D


@wrong("count_parameters", "8 · D²")
def count_twelve_d_squared(V, D, L, H, K, F, tied):
    attention = 2 * D * (D // H) * (H + K)
    return V * D * (2 - tied) + L * (attention + 8 * D**2 + 2 * D) + D


@wrong("count_parameters", "the norms are missing, all of them")
def count_matrices(V, D, L, H, K, F, tied):
    E = D // H
    return V * D * (2 - tied) + L * (2 * H * E * D + 2 * K * E * D + 3 * D * F)


@wrong("count_parameters", "the last norm is missing")
def count_layers_and_tables(V, D, L, H, K, F, tied):
    layer = 2 * D * (D // H) * (H + K) + 3 * D * F + 2 * D
    return L * layer + V * D + (0 if tied else V * D)


@wrong("count_parameters", "one norm a layer")
def count_a_norm_in_each_layer(V, D, L, H, K, F, tied):
    layer = 2 * D * (D // H) * (H + K) + 3 * D * F
    return L * layer + V * D * (1 + (not tied)) + (L + 1) * D


@wrong("count_parameters", "attention is counted once")
def count_brackets_forgotten(V, D, L, H, K, F, tied):
    attention = 2 * D * (D // H) * (H + K)
    return V * D * (1 + (not tied)) + attention + L * (3 * D * F + 2 * D) + D


@wrong("count_parameters", "everything is multiplied by L")
def count_with_brackets_too_wide(V, D, L, H, K, F, tied):
    return L * (V * D * (1 + (not tied)) + 2 * D * (D // H) * (H + K) + 3 * D * F + 2 * D + D)


@wrong("count_parameters", "two things")
def count_no_gate_and_no_last_norm(V, D, L, H, K, F, tied):
    return V * D * (1 + (not tied)) + L * (2 * D * (D // H) * (H + K) + 2 * D * F + 2 * D)


@wrong("count_parameters", "weights are whole")
def count_with_a_slash(V, D, L, H, K, F, tied):
    return V * D * (2 - tied) + L * (2 * D * D + 2 * D * D * K / H + 3 * D * F + 2 * D) + D


@wrong("count_parameters", "Is there a `return`?")
def count_prints(V, D, L, H, K, F, tied):
    print(V * D * (2 - tied) + L * (2 * D * (D // H) * (H + K) + 3 * D * F + 2 * D) + D)


@wrong("count_parameters", "too many")
def count_in_thousands(V, D, L, H, K, F, tied):
    return 1000 * V * D


@wrong("count_parameters")
def count_by_name(V, D, L, H, K, F, tied):
    return V * D + n_layers * D   # noqa: F821


# ---- whole models

def model(tokens, weights, read=None, norm=None, mask=None, scores=None, block=None):
    "A model in which somebody has changed one part."
    T = tokens.shape[1]
    norm = norm or (lambda x, weight: F.rms_norm(x, weight.shape, weight, 1e-6))
    x = read(tokens, weights) if read else weights.embedding[tokens] + weights.positions[:T]
    hidden = torch.triu(torch.ones(T, T), 1).bool() if mask is None else mask(T)
    for layer in weights.layers:
        def attend(h, layer=layer):
            q, k, v = h @ layer.query.T, h @ layer.key.T, h @ layer.value.T
            raw = scores(q, k) if scores else q @ k.mT / math.sqrt(k.shape[-1])
            return raw.masked_fill(hidden, -torch.inf).softmax(-1) @ v @ layer.output.T

        def compute(h, layer=layer): return F.relu(h @ layer.up.T) @ layer.down.T

        if block:
            x = block(x, layer, norm, attend, compute)
        else:
            x = x + attend(norm(x, layer.norm_1))
            x = x + compute(norm(x, layer.norm_2))
    return norm(x, weights.norm) @ weights.embedding.T


@wrong("transformer", "something is computed over all texts at once")
def transformer_one_norm(tokens, weights):
    return model(tokens, weights, norm=lambda x, weight: F.rms_norm(x, x.shape, eps=1e-6) * weight)


@wrong("transformer", "something is computed over all texts at once")
def transformer_attention_over_the_batch(tokens, weights):
    def flat(q, k): return q @ k.mean(0).T / math.sqrt(k.shape[-1])
    return model(tokens, weights, scores=flat)


@wrong("transformer", "somebody looks ahead")
def transformer_mask_on_its_side(tokens, weights):
    return model(tokens, weights, mask=lambda T: torch.ones(T, T).triu(1).bool().T)


@wrong("transformer", "somebody looks ahead")
def transformer_sees_one_more(tokens, weights):
    return model(tokens, weights, mask=lambda T: torch.arange(T) > torch.arange(T)[:, None] + 1)


@wrong("transformer", "how long the text is")
def transformer_root_of_t(tokens, weights):
    return model(tokens, weights, scores=lambda q, k: q @ k.mT / math.sqrt(q.size(1)))


@wrong("transformer", "how long the text is")
def transformer_counts_down(tokens, weights):
    def read(tokens, weights): return weights.embedding[tokens] + weights.positions[torch.arange(tokens.shape[1] - 1, -1, -1)]
    return model(tokens, weights, read=read)


@wrong("transformer", "nobody knows where words stand")
def transformer_bag_of_words(tokens, weights):
    return model(tokens, weights, read=lambda tokens, weights: weights.embedding[tokens])


@wrong("transformer", "nobody knows where words stand")
def transformer_position_of_the_word(tokens, weights):
    both = torch.cat([weights.embedding, weights.positions[:len(weights.embedding)]], dim=1)
    return model(tokens, weights, read=lambda tokens, weights: sum(F.embedding(tokens, both).chunk(2, -1)))


@wrong("transformer", "words hear nothing of each other")
def transformer_without_attention(tokens, weights):
    return model(tokens, weights, block=lambda x, layer, norm, attend, compute: x + compute(norm(x, layer.norm_2)))


@wrong("transformer", "word 0 of a text gets NaN")
def transformer_hides_itself(tokens, weights):
    return model(tokens, weights, mask=lambda T: ~torch.ones(T, T, dtype=torch.bool).tril(-1))


@wrong("transformer", "`norm_2` of layer 0 gets no gradient")
def transformer_norms_mixed_up(tokens, weights):
    def block(x, layer, norm, attend, compute):
        h = x + attend(norm(x, layer.norm_1))
        return h + compute(norm(h, layer.norm_1))
    return model(tokens, weights, block=block)


@wrong("transformer", "`norm_2` of layer 0 gets no gradient (and 1 more)")
def transformer_ffn_unnormed(tokens, weights):
    def block(x, layer, norm, attend, compute):
        h = x + attend(norm(x, layer.norm_1))
        return h + compute(h)
    return model(tokens, weights, block=block)


@wrong("transformer", "no gradient comes through")
def transformer_data(tokens, weights):
    return model(tokens, weights).data


@wrong("transformer", "reads what attention read (blocks side by side)")
def transformer_in_parallel(tokens, weights):
    def block(x, layer, norm, attend, compute): return sum((x, attend(norm(x, layer.norm_1)), compute(norm(x, layer.norm_2))))
    return model(tokens, weights, block=block)


@wrong("transformer", "query and key are exchanged")
def transformer_scores_turned_over(tokens, weights):
    return model(tokens, weights, scores=lambda q, k: (q @ k.mT).mT / math.sqrt(k.shape[-1]))


@wrong("transformer", "by its root, √E")
def transformer_no_root(tokens, weights):
    return model(tokens, weights, scores=lambda q, k: q @ k.mT / k.shape[-1])


@wrong("transformer", "positions begin at 1")
def transformer_one_based(tokens, weights):
    def read(tokens, weights): return weights.embedding[tokens] + weights.positions[torch.arange(1, 1 + tokens.shape[1])]
    return model(tokens, weights, read=read)


@wrong("transformer", "the norms stand behind the additions")
def transformer_of_2017(tokens, weights):
    def block(x, layer, norm, attend, compute):
        x = norm(x + attend(x), layer.norm_1)
        return norm(x + compute(x), layer.norm_2)
    return model(tokens, weights, block=block)


@wrong("transformer", "as LayerNorm does")
def transformer_with_layer_norm(tokens, weights):
    return model(tokens, weights, norm=lambda x, weight: F.layer_norm(x, x.shape[-1:], weight, None, 1e-6))


@wrong("transformer", "you return probabilities")
def transformer_softmaxed(tokens, weights):
    return F.softmax(model(tokens, weights), dim=2)


@wrong("transformer", "two things")
def transformer_one_based_without_root(tokens, weights):
    def read(tokens, weights): return weights.embedding[tokens] + weights.positions[1:][:tokens.shape[1]]
    return model(tokens, weights, read=read, scores=lambda q, k: q @ k.mT / k.shape[-1])


@wrong("transformer", "changes `positions`")
def transformer_scales_its_weights(tokens, weights):
    weights.positions *= 1
    weights.positions[0] += 1e-9
    return model(tokens, weights)


@wrong("transformer")
def transformer_drops(tokens, weights):
    return 1.1 * model(tokens, weights)


@wrong("transformer")
def transformer_index_error(tokens, weights):
    def read(tokens, weights): return weights.embedding[tokens] + weights.positions[tokens + 5]
    return model(tokens, weights, read=read)


# ---- induction heads

@wrong("induction_score", "the same token itself")
def score_duplicates(weights, period):
    return weights.diagonal(offset=-period, dim1=1, dim2=2).mean(-1)


@wrong("induction_score", "what came before the same token")
def score_sign_of_the_one(weights, period):
    T = weights.shape[-1]
    return torch.stack([weights[:, t, t - (period + 1)] for t in range(period, T)]).mean(0)


@wrong("induction_score", "as a whole diagonal does")
def score_whole_diagonal(weights, period):
    return torch.diagonal(weights, 1 - period, 1, 2).mean(dim=1)


@wrong("induction_score", "your diagonal lies in the future")
def score_diagonal_above(weights, period):
    return torch.stack([torch.diag(head, period - 1).mean() for head in weights])


@wrong("induction_score", "rows and columns are exchanged")
def score_of_columns(weights, period):
    return weights.mT[:, period:].diagonal(1, 1, 2).mean(1)


@wrong("induction_score", "as a previous-token head does")
def score_previous(weights, period):
    return torch.stack([head[period:, period - 1:-1].diag().mean() for head in weights])


@wrong("induction_score", "you begin at t = 0")
def score_negative_indices(weights, period):
    T = weights.shape[-1]
    return sum(weights[:, t, t - period + 1] for t in range(T)) / T


@wrong("induction_score", "you stop one token too early")
def score_short_range(weights, period):
    looks = [weights[:, t, t - period + 1] for t in range(period, weights.shape[-1] - 1)]
    return torch.stack(looks).mean(0)


@wrong("induction_score", "you divide by T:")
def score_over_all_places(weights, period):
    T = weights.shape[-1]
    return sum(weights[:, t, t - period + 1] for t in range(period, T)) / T


@wrong("induction_score", "you sum up")
def score_total(weights, period):
    return torch.einsum("htt->h", weights[:, period:, 1:1 - period])


@wrong("induction_score", "the mean goes over the heads too")
def score_of_the_layer(weights, period):
    return weights[:, period:].diagonal(1, 1, 2).mean()


@wrong("induction_score", "every earlier time is counted")
def score_of_all_repetitions(weights, period):
    T = weights.shape[-1]
    t, s = torch.arange(T)[:, None], torch.arange(T)
    followed = ((t - s + 1) % period == 0) & (s > 0) & (s <= t - period + 1) & (t >= period)
    return (weights * followed).sum((1, 2)) / (T - period)


@wrong("induction_score", "the first repetition alone")
def score_of_two_copies(weights, period):
    both = weights[:, :2 * period, :2 * period]
    return both[:, period:].diagonal(1, 1, 2).mean(-1)


@wrong("induction_score", "two things")
def score_sum_of_the_same_token(weights, period):
    return torch.stack([head.diagonal(-period).sum() for head in weights])


@wrong("induction_score", "Is there a `return`?")
def score_prints(weights, period):
    print(weights[:, period:].diagonal(1, 1, 2).mean(1))


@wrong("induction_score")
def score_squared(weights, period):
    return weights[:, period:].diagonal(1, 1, 2).square().mean(1)


# ---- the loss

@wrong("cross_entropy", "in bits")
def loss_log2(logits, targets):
    asked = targets != -100
    p = F.softmax(logits[asked], dim=1)[range(int(asked.sum())), targets[asked]]
    return -torch.log2(p).mean()


@wrong("cross_entropy", "the minus is missing")
def loss_log_likelihood(logits, targets):
    n = (targets >= 0).sum().clamp(min=1)
    return -F.cross_entropy(logits, targets, reduction="sum") / n


@wrong("cross_entropy", "0 by 0")
def loss_plain_pytorch(logits, targets):
    return F.cross_entropy(logits, targets)


@wrong("cross_entropy", "softmax is taken twice")
def loss_softmax_before_cross_entropy(logits, targets):
    return F.cross_entropy(logits.softmax(dim=-1), targets, reduction="sum") / max(1, int((targets != -100).sum()))


@wrong("cross_entropy", "wants `log_softmax`")
def loss_nll_of_softmax(logits, targets):
    return F.nll_loss(torch.softmax(logits, 1), targets, reduction="sum") / max(1, len(targets[targets != -100]))


@wrong("cross_entropy", "the raw score")
def loss_nll_of_logits(logits, targets):
    return F.nll_loss(logits, targets, reduction="sum") / (targets > -1).sum().clamp(min=1)


@wrong("cross_entropy", "add the losses up")
def loss_total(logits, targets):
    return F.cross_entropy(logits, targets, reduction="sum")


@wrong("cross_entropy", "the number of all places")
def loss_over_len(logits, targets):
    total = 0.0
    for z, y in zip(logits, targets, strict=True):
        if y != -100:
            total = total + torch.logsumexp(z, 0) - z[y]
    return torch.as_tensor(total) / len(targets)


@wrong("cross_entropy", "as if token 0 were right")
def loss_padding_is_zero(logits, targets):
    return F.cross_entropy(logits, torch.where(targets < 0, 0, targets))


@wrong("cross_entropy", "∞ by ∞")
def loss_softmax_by_hand(logits, targets):
    asked = targets != -100
    e = torch.exp(logits)
    p = (e / torch.sum(e, dim=1, keepdim=True))[torch.arange(len(targets)), targets.clamp(min=0)]
    losses = -torch.log(p)
    return torch.sum(losses[asked]) / max(1, torch.sum(asked).item())


@wrong("cross_entropy", "Σ eᶻ overflows")
def loss_log_of_sum(logits, targets):
    asked = (targets != -100).nonzero()[:, 0]
    losses = [torch.log(torch.exp(logits[t]).sum()) - logits[t, targets[t]] for t in asked]
    return sum(losses, torch.tensor(0.0)) / max(1, len(losses))


@wrong("cross_entropy", "ln 0 is −∞")
def loss_log_of_softmax(logits, targets):
    kept = targets.ne(-100)
    p = logits.softmax(-1).gather(1, targets.masked_fill(~kept, 0).unsqueeze(1)).squeeze(1)
    return -(p.log().masked_fill(~kept, 0.0)).sum() / kept.sum().clamp(min=1)


@wrong("cross_entropy", "stops at")
def loss_with_epsilon(logits, targets):
    kept = targets.ne(-100)
    p = logits.softmax(-1).gather(1, targets.masked_fill(~kept, 0).unsqueeze(1)).squeeze(1)
    return -((p + 1e-12).log().masked_fill(~kept, 0.0)).sum() / kept.sum().clamp(min=1)


@wrong("cross_entropy", "the whole table")
def loss_one_max(logits, targets):
    z = logits - torch.max(logits)
    kept = targets.ne(-100)
    picked = z.gather(1, targets.masked_fill(~kept, 0)[:, None])[:, 0]
    return ((z.exp().sum(1).log() - picked) * kept).sum() / max(1, int(kept.sum())) if kept.any() else z.sum() * 0


@wrong("cross_entropy", "the logarithm of the mean")
def loss_of_mean_probability(logits, targets):
    asked = targets != -100
    if not asked.any():
        return torch.zeros(())
    p = logits[asked].softmax(-1).gather(1, targets[asked][:, None])
    return -p.mean().log()


@wrong("cross_entropy", "the likeliest token")
def loss_of_the_prediction(logits, targets):
    asked = targets != -100
    return F.cross_entropy(logits[asked], logits[asked].argmax(-1), reduction="sum") / asked.sum().clamp(min=1)


@wrong("cross_entropy", "every target in every row")
def loss_pairs(logits, targets):
    asked = targets != -100
    if asked.sum() == 0:
        return torch.tensor(0.0)
    return -torch.log_softmax(logits[asked], -1)[:, targets[asked]].mean()


@wrong("cross_entropy", "over the places")
def loss_dim_zero(logits, targets):
    return F.nll_loss(torch.log_softmax(logits, dim=0), targets, reduction="sum") / (targets != -100).sum().clamp(min=1)


@wrong("cross_entropy", "out of bounds")
def loss_gathers_minus_100(logits, targets):
    losses = -logits.log_softmax(1).gather(1, targets[:, None])[:, 0]
    return losses[targets != -100].mean()


@wrong("cross_entropy", "non-negative")
def loss_one_hot_of_minus_100(logits, targets):
    losses = -(F.one_hot(targets, logits.shape[1]) * logits.log_softmax(1)).sum(1)
    return losses[targets != -100].mean()


@wrong("cross_entropy", "changes `targets`")
def loss_writes_zeros(logits, targets):
    asked = targets != -100
    targets[~asked] = 0
    losses = F.cross_entropy(logits, targets, reduction="none")
    return (losses * asked).sum() / asked.sum().clamp(min=1)


@wrong("cross_entropy", "of type float")
def loss_as_float(logits, targets):
    return float(loss_total(logits, targets)) / max(1, int((targets != -100).sum()))


@wrong("cross_entropy", "two things")
def loss_bits_added_up(logits, targets):
    return F.cross_entropy(logits, targets, reduction="sum") / math.log(2)


@wrong("cross_entropy", "16 bits")
def loss_half(logits, targets):
    return F.cross_entropy(logits.to(torch.bfloat16), targets, reduction="sum") / (targets != -100).sum().clamp(min=1)


@wrong("cross_entropy")
def loss_of_rounded_scores(logits, targets):
    return F.cross_entropy(logits.bfloat16().float(), targets, reduction="sum") / (targets != -100).sum().clamp(min=1)


@wrong("cross_entropy")
def loss_smoothed(logits, targets):
    return F.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.1) / (targets != -100).sum().clamp(min=1)


@wrong("cross_entropy")
def loss_focal(logits, targets):
    losses = F.cross_entropy(logits, targets, reduction="none")
    return ((1 - (-losses).exp()) ** 2 * losses).sum() / (targets != -100).sum().clamp(min=1)


@wrong("cross_entropy")
def loss_of_a_warm_model(logits, targets):
    return F.cross_entropy(logits / 2, targets, reduction="sum") / (targets != -100).sum().clamp(min=1)


# ---- targets

@wrong("make_targets", "nothing is shifted")
def targets_where_answer(tokens, answer):
    targets = tokens.clone()
    targets[answer.logical_not()] = -100
    return targets


@wrong("make_targets", "you look whether the token at place t")
def targets_mask_of_now(tokens, answer):
    targets = torch.full_like(tokens, -100)
    for b, t in answer.nonzero():
        if t + 1 < tokens.shape[1]:
            targets[b, t] = tokens[b, t + 1]
    return targets


@wrong("make_targets", "you shift the wrong way")
def targets_rolled_to_the_right(tokens, answer):
    hidden = tokens.masked_fill(~answer, -100)
    targets = torch.roll(hidden, 1, 1)
    targets[:, 0] = -100
    return targets


@wrong("make_targets", "`roll` puts the first token")
def targets_rolled(tokens, answer):
    return torch.where(torch.roll(answer, -1, 1), torch.roll(tokens, -1, 1), -100)


@wrong("make_targets", "run into each other")
def targets_rolled_without_a_dimension(tokens, answer):
    targets = torch.where(answer, tokens, -100).roll(-1)
    targets[-1, -1] = -100
    return targets


@wrong("make_targets", "T − 1 places")
def targets_cut(tokens, answer):
    return tokens[..., 1:].masked_fill(~answer[..., 1:], -100)


@wrong("make_targets", "you put 0, which is a token")
def targets_multiplied(tokens, answer):
    targets = torch.zeros_like(tokens)
    targets[:, :-1] = (tokens * answer)[:, 1:]
    targets[:, -1] = -100
    return targets


@wrong("make_targets", "everything is asked")
def targets_of_a_story(tokens, answer):
    last = tokens.new_full((tokens.shape[0], 1), -100)
    return torch.hstack([tokens[:, 1:], last])


@wrong("make_targets", "you ask the questions")
def targets_the_other_way(tokens, answer):
    targets = torch.where(answer, -100, tokens)
    return F.pad(targets[:, 1:], (0, 1), value=-100)


@wrong("make_targets", "you hide token 0")
def targets_zero_is_nothing(tokens, answer):
    hidden = tokens * answer
    hidden[hidden == 0] = -100
    return F.pad(hidden[:, 1:], (0, 1), value=-100)


@wrong("make_targets", "its own token is left")
def targets_written_into_a_copy(tokens, answer):
    targets = tokens.clone()
    targets[:, :-1] = torch.where(answer[:, 1:], tokens[:, 1:], -100)
    return targets


@wrong("make_targets", "changes `tokens`")
def targets_written_into_tokens(tokens, answer):
    tokens[:, :-1] = torch.where(answer[:, 1:], tokens[:, 1:], -100)
    tokens[:, -1] = -100
    return tokens


@wrong("make_targets", "your targets are torch.float32")
def targets_not_a_number(tokens, answer):
    shown = torch.where(answer, tokens, torch.nan)
    return F.pad(shown[:, 1:], (0, 1), value=torch.nan).nan_to_num(-100.0)


@wrong("make_targets", "two things")
def targets_inverted_and_zero(tokens, answer):
    return torch.cat([tokens[:, 1:] * ~answer[:, 1:], torch.full((len(tokens), 1), -100)], 1)


@wrong("make_targets")
def targets_of_the_first_text(tokens, answer):
    return F.pad(torch.where(answer[:1, 1:], tokens[:, 1:], -100), (0, 1), value=-100)


@wrong("make_targets", "the last token of an answer")
def targets_without_the_end_of_answers(tokens, answer):
    ends = answer & ~F.pad(answer[:, 1:], (0, 1))
    return F.pad(torch.where(answer & ~ends, tokens, -100)[:, 1:], (0, 1), value=-100)


# ---- the gradient

@wrong("gradient", "divide by how many targets count")
def gradient_of_a_sum(logits, targets):
    rows = torch.zeros_like(logits)
    for t, y in enumerate(targets):
        if y >= 0:
            rows[t] = logits[t].softmax(0)
            rows[t, y] -= 1
    return rows


@wrong("gradient", "all places")
def gradient_over_len(logits, targets):
    return gradient_of_a_sum(logits, targets) / targets.numel()


@wrong("gradient", "the sign is wrong")
def gradient_as_a_step(logits, targets):
    return -gradient_of_a_sum(logits, targets) / max(1, int((targets != -100).sum()))


@wrong("gradient", "only the right token has a gradient")
def gradient_sparse(logits, targets):
    rows, n = torch.zeros_like(logits), (targets >= 0).sum().clamp(min=1)
    asked = (targets >= 0).nonzero()[:, 0]
    rows[asked, targets[asked]] = (logits.softmax(-1)[asked, targets[asked]] - 1) / n
    return rows


@wrong("gradient", "with respect to the probability")
def gradient_of_minus_log(logits, targets):
    rows, n = torch.zeros_like(logits), (targets >= 0).sum().clamp(min=1)
    for t in range(len(targets)):
        if targets[t] >= 0:
            rows[t, targets[t]] = -1 / logits[t].softmax(-1)[targets[t]] / n
    return rows


@wrong("gradient", "as if token 0 were right")
def gradient_with_padding(logits, targets):
    p = torch.softmax(logits, dim=1)
    p[torch.arange(len(targets)), targets.clamp(0)] -= 1
    return p / (targets != -100).sum().clamp(min=1)


@wrong("gradient", "∞/∞ is NaN")
def gradient_naive(logits, targets):
    e = logits.exp()
    asked = (targets != -100)[:, None]
    rows = e / e.sum(1)[:, None] - F.one_hot(targets.where(targets >= 0, 0), logits.size(1))
    return rows * asked / max(1, int(asked.sum()))


@wrong("gradient", "0 by 0")
def gradient_mean_of_nothing(logits, targets):
    return gradient_of_a_sum(logits, targets) / (targets != -100).sum()


@wrong("gradient", "over the places")
def gradient_dim_zero(logits, targets):
    asked = targets != -100
    rows = F.softmax(logits, 0) - F.one_hot(targets * asked, logits.shape[-1])
    return rows * asked[:, None] / asked.sum().clamp(min=1)


@wrong("gradient", "no factor 2")
def gradient_factor_2(logits, targets):
    return 2 * gradient_of_a_sum(logits, targets) / max(1, int((targets != -100).sum()))


@wrong("gradient", "the 1 at the right token is not subtracted")
def gradient_forgot_the_one(logits, targets):
    asked = targets != -100
    return logits.softmax(-1) * asked[:, None] / asked.sum().clamp(min=1)


@wrong("gradient", "a squared distance between")
def gradient_of_mse(logits, targets):
    z = logits.clone().requires_grad_()
    asked = targets != -100
    with torch.enable_grad():
        away = (z.softmax(-1) - F.one_hot(targets.clamp(min=0), z.shape[1])) ** 2
        loss = away[asked].sum() / asked.sum().clamp(min=1)
    return torch.autograd.grad(loss, z)[0]


@wrong("gradient", "two things")
def gradient_up_and_not_shared(logits, targets):
    return -gradient_of_a_sum(logits, targets)


@wrong("gradient", "make torch.float32")
def gradient_in_a_new_table(logits, targets):
    rows = torch.zeros(logits.shape)
    rows[:] = gradient_of_a_sum(logits, targets) / max(1, int((targets != -100).sum()))
    return rows


@wrong("gradient")
def gradient_centred(logits, targets):
    return (logits - logits.mean(1, keepdim=True)) * (targets >= 0)[:, None]


@wrong("gradient")
def gradient_with_negative_slopes_only(logits, targets):
    return (gradient_of_a_sum(logits, targets) / max(1, int((targets != -100).sum()))).clamp(max=0.3)


# ---- a sum of powers, piece by piece

@wrong("log_sum_exp", "Σ eᶻ overflows")
def pieces_naive(pieces):
    return torch.log(sum(torch.exp(piece).sum(dim=1) for piece in pieces))


@wrong("log_sum_exp", "multiplies their sums")
def pieces_added(pieces):
    total = 0
    for piece in pieces:
        total = total + torch.logsumexp(piece, dim=-1)
    return total


@wrong("log_sum_exp", "the sum is not rescaled")
def pieces_running_max_only(pieces):
    m, s = None, 0
    for piece in pieces:
        here = piece.max(dim=1).values
        m = here if m is None else torch.maximum(m, here)
        safe = torch.where(m == -math.inf, 0.0, m)
        s = s + torch.exp(piece - safe[:, None]).sum(1)
    return m + torch.log(s)


@wrong("log_sum_exp", "the largest score of the first piece")
def pieces_first_max(pieces):
    pieces = iter(pieces)
    first = next(pieces)
    m = first.amax(1)
    safe = torch.where(m == -math.inf, 0.0, m)
    s = (first - safe[:, None]).exp().sum(1)
    for piece in pieces:
        s = s + (piece - safe[:, None]).exp().sum(1)
    return safe + s.log()


@wrong("log_sum_exp", "−∞ − (−∞)")
def pieces_nan(pieces):
    m, s = -math.inf, 0.0
    for piece in pieces:
        new = torch.maximum(torch.as_tensor(m), piece.amax(-1))
        s = s * torch.exp(m - new) + torch.exp(piece - new.unsqueeze(-1)).sum(-1)
        m = new
    return m + s.log()


@wrong("log_sum_exp", "go through `pieces` twice")
def pieces_max_then_sum(pieces):
    m = -math.inf
    for piece in pieces:
        m = torch.maximum(torch.as_tensor(m), piece.amax(-1))
    shift = torch.where(m.isinf(), 0, m)
    s = torch.zeros_like(shift)
    for piece in pieces:
        s = s + (piece - shift[:, None]).exp().sum(-1)
    return shift + s.log()


@wrong("log_sum_exp", "which has no length")
def pieces_indexed(pieces):
    found = [pieces[i].logsumexp(-1) for i in range(len(pieces))]
    return torch.stack(found).logsumexp(0)


@wrong("log_sum_exp", "you hold all pieces at once")
def pieces_concatenated(pieces):
    return torch.cat(list(pieces), dim=-1).logsumexp(-1)


@wrong("log_sum_exp", "you hold all pieces at once")
def pieces_unpacked(pieces):
    first, *rest = pieces
    found = first.logsumexp(1)
    for piece in rest:
        found = torch.logaddexp(found, piece.logsumexp(1))
    return found


@wrong("log_sum_exp", "you put the pieces together")
def pieces_in_a_buffer(pieces):
    held = None
    for piece in pieces:
        held = piece.clone() if held is None else torch.hstack((held, piece))
    return held.logsumexp(1)


@wrong("log_sum_exp", "you return the largest score")
def pieces_max(pieces):
    return torch.stack([piece.max(-1).values for piece in pieces], -1).max(-1).values


@wrong("log_sum_exp", "the first piece is counted twice")
def pieces_first_twice(pieces):
    found = None
    for piece in pieces:
        if found is None:
            found = piece.logsumexp(-1)
        found = torch.logaddexp(found, piece.logsumexp(-1))
    return found


@wrong("log_sum_exp", "your loop ends too early")
def pieces_return_in_the_loop(pieces):
    found = torch.tensor(-math.inf)
    for piece in pieces:
        found = torch.logaddexp(found, piece.logsumexp(-1))
        return found


@wrong("log_sum_exp", "Begin with −∞")
def pieces_zero_to_begin_with(pieces):
    m, s = torch.zeros(1), 0.0
    for piece in pieces:
        old, m = m, torch.maximum(m, piece.amax(-1))
        s = s * (old - m).exp() + (piece - m[:, None]).exp().sum(-1)
    return m + torch.log(s)


@wrong("log_sum_exp", "one token more")
def pieces_logaddexp_from_zero(pieces):
    found = torch.zeros(())
    for piece in pieces:
        found = torch.logaddexp(found, piece.logsumexp(-1))
    return found


@wrong("log_sum_exp", "with `clamp`")
def pieces_clamped(pieces):
    return torch.log(sum(piece.clamp(max=80).exp().sum(-1) for piece in pieces))


@wrong("log_sum_exp", "without `keepdim`")
def pieces_keepdim(pieces):
    return torch.stack([piece.logsumexp(-1, keepdim=True) for piece in pieces]).logsumexp(0)


@wrong("log_sum_exp", "changes `first_piece`")
def pieces_in_place(pieces):
    found = None
    for piece in pieces:
        m = piece.amax(-1, keepdim=True).clamp(min=-1e20)
        piece -= m
        here = piece.exp().sum(-1).log() + m[:, 0]
        found = here if found is None else torch.logaddexp(found, here)
    return found


@wrong("log_sum_exp")
def pieces_every_second(pieces):
    found = torch.tensor(-math.inf)
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            found = torch.logaddexp(found, piece.logsumexp(-1))
    return found


@wrong("log_sum_exp", "the mean of the logarithms")
def pieces_mean_weighted(pieces):
    found, n = None, 0
    for piece in pieces:
        here, n = piece.logsumexp(-1), n + 1
        found = here if found is None else found + (here - found) / n
    return found


# ---- perplexity

@wrong("perplexity", "a batch of one token counts as much")
def doors_of_the_mean(losses, n_tokens):
    kept = [loss for loss, n in zip(losses.tolist(), n_tokens.tolist(), strict=True) if n]
    mean = sum(kept) / len(kept)
    return math.exp(mean) if mean < 500 else math.inf


@wrong("perplexity", "a batch of one token counts as much")
def doors_nanmean(losses, n_tokens):
    return torch.exp(torch.nanmean(losses))


@wrong("perplexity", "the mean of perplexities")
def doors_averaged(losses, n_tokens):
    full = n_tokens.nonzero()[:, 0]
    share = n_tokens[full] / n_tokens.sum()
    return (share * torch.exp(losses[full])).sum()


@wrong("perplexity", "batches' perplexities")
def doors_of_each_batch(losses, n_tokens):
    return losses[n_tokens != 0].exp().mean().item()


@wrong("perplexity", "2 to the power")
def doors_by_exp2(losses, n_tokens):
    full = n_tokens > 0
    return torch.exp2((losses[full] * n_tokens[full]).sum() / n_tokens[full].sum())


@wrong("perplexity", "the power is missing")
def doors_as_loss(losses, n_tokens):
    return torch.nansum(losses * n_tokens) / n_tokens.sum()


@wrong("perplexity", "NaN · 0 is NaN")
def doors_weighted(losses, n_tokens):
    weights = n_tokens / n_tokens.sum()
    return (losses * weights).sum().exp()


@wrong("perplexity", "NaN · 0 is NaN")
def doors_of_a_dot_product(losses, n_tokens):
    return math.e ** (torch.dot(losses, n_tokens.to(losses.dtype)) / n_tokens.sum())


@wrong("perplexity", "OverflowError")
def doors_by_math(losses, n_tokens):
    total = sum(loss * n for loss, n in zip(losses.tolist(), n_tokens.tolist(), strict=True) if n > 0)
    return math.exp(total / sum(n_tokens.tolist()))


@wrong("perplexity", "OverflowError")
def doors_by_a_power(losses, n_tokens):
    total = sum(loss * n for loss, n in zip(losses.tolist(), n_tokens.tolist(), strict=True) if n > 0)
    return math.e ** (total / n_tokens.sum().item())


@wrong("perplexity", "stops at")
def doors_at_most(losses, n_tokens):
    full = n_tokens > 0
    return torch.exp(min(torch.tensor(30.0), (losses[full] * n_tokens[full]).sum() / n_tokens.sum()))


@wrong("perplexity", "costs nothing")
def doors_where_something_is_lost(losses, n_tokens):
    total, n = 0.0, 0
    for loss, many in zip(losses, n_tokens, strict=True):
        if loss > 0:
            total, n = total + loss * many, n + many
    return torch.as_tensor(total / max(n, 1)).exp()


@wrong("perplexity", "had one")
def doors_at_least_one_token(losses, n_tokens):
    n = torch.clamp(n_tokens, 1)
    return ((torch.nan_to_num(losses) * n).sum() / n.sum()).exp()


@wrong("perplexity", "take the losses for sums")
def doors_of_sums(losses, n_tokens):
    return torch.exp(losses.nansum() / n_tokens.sum())


@wrong("perplexity", "shape ()")
def doors_in_a_list(losses, n_tokens):
    full = n_tokens > 0
    return ((losses[full] * n_tokens[full]).sum(0, keepdim=True) / n_tokens.sum()).exp()


@wrong("perplexity", "Is there a `return`?")
def doors_forgotten(losses, n_tokens):
    torch.exp((losses * n_tokens).nansum() / n_tokens.sum())


@wrong("perplexity")
def doors_rounded(losses, n_tokens):
    found = ((losses * n_tokens).nansum() / n_tokens.sum()).exp().item()
    return found if found == math.inf else round(found, 1)


@wrong("perplexity")
def doors_of_the_median(losses, n_tokens):
    return losses.repeat_interleave(n_tokens).median().exp()


# ---- bits per byte

@wrong("bits_per_byte", "you count characters")
def bits_over_len(losses, text):
    return (losses.sum() / len(text) / math.log(2)).item()


@wrong("bits_per_byte", "these are nats")
def bits_of_nats(losses, text):
    return sum(losses.tolist()) / len(text.encode())


@wrong("bits_per_byte", "bits per token")
def bits_of_the_mean_loss(losses, text):
    return losses.mean() / torch.log(torch.tensor(2.0))


@wrong("bits_per_byte", "mean of the losses")
def bits_of_a_mean(losses, text):
    return losses.mean().item() * math.log2(math.e) / len(bytes(text, "utf8"))


@wrong("bits_per_byte", "multiply by ln 2")
def bits_times(losses, text):
    return math.log(2) * losses.sum().item() / len(text.encode())


@wrong("bits_per_byte", "UTF-16")
def bits_of_windows(losses, text):
    return losses.sum() / math.log(2) / len(codecs.encode(text, "utf-16"))


@wrong("bits_per_byte", "UTF-32")
def bits_of_code_points(losses, text):
    return losses.sum() / math.log(2) / len(text.encode("utf-32-le"))


@wrong("bits_per_byte", "not ASCII")
def bits_of_ascii(losses, text):
    return losses.sum() / (math.log(2) * max(1, sum(ord(character) < 128 for character in text)))


@wrong("bits_per_byte", "Latin-1")
def bits_of_latin(losses, text):
    return losses.sum() / (math.log(2) * len(bytes(text, "iso-8859-1")))


@wrong("bits_per_byte", "line breaks at the ends")
def bits_of_a_stripped_text(losses, text):
    return losses.sum().div(math.log(2)) / max(1, len(text.strip(" \r\n").encode()))


@wrong("bits_per_byte", "divide by 8")
def bits_of_bits(losses, text):
    bits = "".join(f"{byte:08b}" for byte in text.encode())
    return losses.sum() / math.log(2) / len(bits)


@wrong("bits_per_byte", "raise 2")
def bits_as_perplexity(losses, text):
    return math.exp(losses.sum().item() / len(text.encode()))


@wrong("bits_per_byte", "for each token")
def bits_unsummed(losses, text):
    return losses / math.log(2) / len(text.encode())


@wrong("bits_per_byte", "number of words")
def bits_per_word(losses, text):
    return losses.sum() / math.log(2) / max(len(text.split(" ")), 1)


@wrong("bits_per_byte", "changes `losses`")
def bits_in_place(losses, text):
    return losses.div_(math.log(2)).sum() / len(text.encode())


@wrong("bits_per_byte", "two things")
def nats_per_character(losses, text):
    return losses.sum() / len(text)


@wrong("bits_per_byte", "normal form")
def bits_of_a_normal_form(losses, text):
    return losses.sum() / math.log(2) / len(unicodedata.normalize("NFC", text).encode())


@wrong("bits_per_byte")
def bits_roughly(losses, text):
    return 1.44 * losses.sum() / len(text.encode())


# ---- the first k

@wrong("top_k", "the k least likely")
def first_k_sorted_up(logits, targets, k):
    asked = targets != -100
    order = torch.argsort(logits[asked], dim=1)[:, :k]
    return torch.eq(order, targets[asked][:, None]).any(1).float().mean()


@wrong("top_k", "whatever k is")
def first_k_argmax(logits, targets, k):
    asked = targets != -100
    return (logits.argmax(-1) == targets)[asked].float().mean()


@wrong("top_k", "number of all places")
def first_k_of_all(logits, targets, k):
    found = (logits.topk(k).indices == targets.unsqueeze(-1)).any(dim=-1)
    return found.float().mean() if (targets >= 0).any() else math.nan


@wrong("top_k", "where nothing is asked you say 0")
def first_k_all_and_nothing(logits, targets, k):
    asked = (targets != -100).sum().item()
    return (logits.topk(k).indices == targets.unsqueeze(-1)).sum().item() / max(1, asked)


@wrong("top_k", "Python refuses")
def first_k_of_lists(logits, targets, k):
    hits = [target in scores.topk(k).indices.tolist() for scores, target in zip(logits, targets.tolist(), strict=True)
            if target != -100]
    return sum(hits) / len(hits)


@wrong("top_k", "k + 1 tokens")
def first_k_at_most_k_better(logits, targets, k):
    asked = targets != -100
    logits, targets = logits[asked], targets[asked]
    better = (logits > logits[torch.arange(len(targets)), targets][:, None]).sum(1)
    return (better <= k).double().mean()


@wrong("top_k", "k − 1 tokens")
def first_k_with_itself(logits, targets, k):
    asked = targets != -100
    logits, targets = logits[asked], targets[asked]
    at_least = (logits >= logits[torch.arange(len(targets)), targets][:, None]).sum(1)
    return (at_least < k).double().mean()


@wrong("top_k", "k-th token alone")
def first_k_at_place_k(logits, targets, k):
    asked = targets != -100
    order = logits[asked].sort(descending=True).indices
    return (order[:, k - 1] == targets[asked]).float().mean()


@wrong("top_k", "scores with token ids")
def first_k_values(logits, targets, k):
    asked = targets != -100
    best, _ = torch.topk(logits[asked], k)
    return (best == targets[asked].unsqueeze(1)).any(1).float().mean()


@wrong("top_k", "of any place")
def first_k_is_in(logits, targets, k):
    asked = targets != -100
    every = set(logits[asked].topk(k).indices.flatten().tolist())
    hits = [float(target in every) for target in targets[asked].tolist()]
    return sum(hits) / len(hits) if hits else math.nan


@wrong("top_k", "the place of a token")
def first_k_argsort_as_rank(logits, targets, k):
    asked = targets != -100
    ranks = torch.argsort(logits[asked], dim=-1, descending=True)
    mine = ranks[torch.arange(len(ranks)), targets[asked]]
    return (mine < k).float().mean()


@wrong("top_k", "percent")
def first_k_percent(logits, targets, k):
    asked = targets != -100
    return 100 * (logits[asked].topk(k).indices == targets[asked].unsqueeze(1)).any(1).float().mean().item()


@wrong("top_k", "by k as well")
def first_k_mean_of_all(logits, targets, k):
    asked = targets != -100
    return (logits[asked].topk(k).indices == targets[asked].unsqueeze(1)).float().mean()


@wrong("top_k", "softmax makes")
def first_k_probable(logits, targets, k):
    asked = targets != -100
    p = torch.softmax(logits[asked], dim=-1)
    mine = p.gather(1, targets[asked].unsqueeze(1))
    return ((p > mine).sum(1) < k).float().mean()


@wrong("top_k", "out of bounds")
def first_k_gathers_minus_100(logits, targets, k):
    hits = (logits > logits.gather(1, targets[:, None])).sum(1) < k
    return hits[targets != -100].float().mean()


@wrong("top_k", "changes `targets`")
def first_k_puts_0(logits, targets, k):
    asked = targets != -100
    targets[targets == -100] = 0
    return (logits.topk(k).indices == targets[:, None]).any(1)[asked].float().mean()


@wrong("top_k", "k + 1 tokens")
def first_k_up_to_k(logits, targets, k):
    asked = targets != -100
    order = logits[asked].argsort(-1, descending=True)[:, :k + 1]
    return (order == targets[asked][:, None]).any(1).double().mean()


@wrong("top_k", "how often it is wrong")
def first_k_error(logits, targets, k):
    asked = targets != -100
    found = (logits[asked].topk(k).indices == targets[asked].unsqueeze(1)).any(1)
    return (~found).float().mean()


@wrong("top_k")
def first_k_most_surprising(logits, targets, k):
    asked = targets != -100
    p = logits[asked].softmax(-1).gather(1, targets[asked].unsqueeze(1))
    return (p > 1 / (k + 1)).float().mean()


# ---- calibration

@wrong("calibration_error", "all bins count alike")
def gap_of_bins(sure, right, n_bins):
    which = (sure * n_bins).int().clamp(0, n_bins - 1)
    gaps = [abs(sure[which == b].mean() - right[which == b].float().mean()).item() for b in range(n_bins) if (which == b).any()]
    return sum(gaps) / len(gaps)


@wrong("calibration_error", "the number of bins")
def gap_over_n_bins(sure, right, n_bins):
    which = (sure * n_bins).int().clamp(0, n_bins - 1)
    gaps = [abs(sure[which == b].mean() - right[which == b].float().mean()).item() for b in range(n_bins) if (which == b).any()]
    return sum(gaps) / n_bins


@wrong("calibration_error", "empty bin")
def gap_of_nothing(sure, right, n_bins):
    which = (sure * n_bins).long().clamp(max=n_bins - 1)
    n = torch.bincount(which, minlength=n_bins)
    said = torch.bincount(which, weights=sure, minlength=n_bins) / n
    true = torch.bincount(which, weights=right.to(sure.dtype), minlength=n_bins) / n
    return (n / n.sum() * (said - true).abs()).sum()


@wrong("calibration_error", "1 falls out")
def gap_below_the_upper_edge(sure, right, n_bins):
    total = 0.0
    for b in range(n_bins):
        inside = (sure >= b / n_bins) & (sure < (b + 1) / n_bins)
        if inside.any():
            total += inside.sum().item() / len(sure) * abs(sure[inside].mean() - right[inside].double().mean()).item()
    return total


@wrong("calibration_error", "a bin of its own")
def gap_of_bincount(sure, right, n_bins):
    which = torch.floor(sure * n_bins).long()
    return torch.bincount(which, weights=sure - right.to(sure.dtype)).abs().sum() / len(sure)


@wrong("calibration_error", "the lower one")
def gap_above_the_lower_edge(sure, right, n_bins):
    total = torch.zeros(())
    for low, high in pairwise(torch.linspace(0, 1, n_bins + 1).tolist()):
        inside = (sure > low) & (sure <= high)
        if inside.sum() > 0:
            total = total + inside.float().mean() * (sure[inside].mean() - right[inside].float().mean()).abs()
    return total


@wrong("calibration_error", "the lower one")
def gap_of_buckets(sure, right, n_bins):
    which = torch.bucketize(sure, torch.arange(1, n_bins) / n_bins)
    return torch.bincount(which, weights=sure - right.to(sure.dtype)).abs().sum() / len(sure)


@wrong("calibration_error", "as if there were one bin")
def gap_of_everything(sure, right, n_bins):
    return abs(sure.mean().item() - right.float().mean().item())


@wrong("calibration_error", "differences with a sign")
def gap_signed(sure, right, n_bins):
    which = (sure * n_bins).long().clamp(max=n_bins - 1)
    return torch.bincount(which, weights=sure - right.to(sure.dtype)).sum() / len(sure)


@wrong("calibration_error", "square the differences")
def gap_squared(sure, right, n_bins):
    which = (sure * n_bins).long().clamp(max=n_bins - 1)
    total = 0
    for b in which.unique():
        inside = which == b
        total += inside.sum() / len(sure) * (sure[inside].mean() - right[inside].float().mean()) ** 2
    return total


@wrong("calibration_error", "the worst bin")
def gap_at_worst(sure, right, n_bins):
    which = (sure * n_bins).long().clamp(max=n_bins - 1)
    return max((sure[which == b].mean() - right[which == b].float().mean()).abs() for b in which.unique())


@wrong("calibration_error", "for each answer")
def gap_answer_by_answer(sure, right, n_bins):
    return (sure - right.float()).abs().mean()


@wrong("calibration_error", "Brier")
def gap_brier(sure, right, n_bins):
    return F.mse_loss(sure, right.to(sure))


@wrong("calibration_error", "equally many")
def gap_of_equal_crowds(sure, right, n_bins):
    order = sure.argsort()
    crowds = torch.arange(len(sure)) * n_bins // len(sure)
    return torch.bincount(crowds, weights=sure[order] - right[order].to(sure.dtype)).abs().sum() / len(sure)


@wrong("calibration_error", "one bin too few")
def gap_of_linspace(sure, right, n_bins):
    edges = torch.linspace(0, 1, max(n_bins, 2))[1:-1]
    which = torch.bucketize(sure, edges, right=True)
    return torch.bincount(which, weights=sure - right.to(sure.dtype)).abs().sum() / len(sure)


@wrong("calibration_error", "exchanged")
def gap_exchanged(sure, right, n_bins):
    which = (right.float() * n_bins).long().clamp(max=n_bins - 1)
    return torch.bincount(which, weights=sure - right.to(sure.dtype)).abs().sum() / len(sure)


@wrong("calibration_error", "share that is wrong")
def gap_to_mistakes(sure, right, n_bins):
    which = (sure * n_bins).long().clamp(max=n_bins - 1)
    return torch.bincount(which, weights=sure - (~right).to(sure.dtype)).abs().sum() / len(sure)


@wrong("calibration_error", "nearest bin")
def gap_rounded(sure, right, n_bins):
    which = torch.round(sure * n_bins).long().clamp(max=n_bins - 1)
    return torch.bincount(which, weights=sure - right.to(sure.dtype)).abs().sum() / len(sure)


@wrong("calibration_error", "do not divide by how many")
def gap_of_sums(sure, right, n_bins):
    which = (sure * n_bins).long().clamp(max=n_bins - 1)
    return torch.bincount(which, weights=sure - right.to(sure.dtype)).abs().sum()


@wrong("calibration_error", "Subtraction")
def gap_of_booleans(sure, right, n_bins):
    return (sure - right).abs().mean()


@wrong("calibration_error")
def gap_in_ten_bins(sure, right, n_bins):
    which = (sure * 10).long().clamp(max=9)
    return torch.bincount(which, weights=sure - right.to(sure.dtype)).abs().sum() / len(sure)


@wrong("calibration_error")
def gap_of_percent(sure, right, n_bins):
    which = (sure * n_bins).long().clamp(max=n_bins - 1)
    return torch.bincount(which, weights=(100 * sure).round() / 100 - right.to(sure.dtype)).abs().sum() / len(sure)


@wrong("calibration_error", "counts in both")
def gap_with_both_edges(sure, right, n_bins):
    total = 0.0
    for low, high in pairwise(torch.linspace(0, 1, n_bins + 1)):
        inside = (low <= sure) & (sure <= high)
        if inside.any():
            total += (sure[inside].sum() - right[inside].sum()).abs() / len(sure)
    return total


# ---- AdamW

@wrong("adamw", "do not correct the means")
def adam_uncorrected(weight, gradient, mean, square, step, lr, betas, eps, decay):
    b1, b2 = betas
    m = b1 * mean + (1 - b1) * gradient
    v = b2 * square + (1 - b2) * gradient ** 2
    return weight - lr * (m / (torch.sqrt(v) + eps) + decay * weight), m, v


@wrong("adamw", "do not correct the square")
def adam_half_corrected(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = torch.lerp(mean, gradient, 1 - betas[0])
    v = torch.lerp(square, gradient * gradient, 1 - betas[1])
    weight = weight * (1 - lr * decay)
    return weight - lr * m / (1 - betas[0] ** step) / (v.sqrt() + eps), m, v


@wrong("adamw", "ε stands in the root")
def adam_eps_inside(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient.pow(2)
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return weight - lr * decay * weight - lr * m_hat * torch.rsqrt(v_hat + eps), m, v


@wrong("adamw", "you correct ε as well")
def adam_tensorflow(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = mean + (1 - betas[0]) * (gradient - mean)
    v = square + (1 - betas[1]) * (gradient ** 2 - square)
    rate = lr * math.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)
    return weight * (1 - lr * decay) - rate * m / (v.sqrt() + eps), m, v


@wrong("adamw", "beside the quotient")
def adam_no_brackets(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient ** 2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return weight - lr * (m_hat / v_hat ** 0.5 + eps + decay * weight), m, v


@wrong("adamw", "Adam with L2")
def adam_with_l2(weight, gradient, mean, square, step, lr, betas, eps, decay):
    g = gradient + decay * weight
    m = betas[0] * mean + (1 - betas[0]) * g
    v = betas[1] * square + (1 - betas[1]) * g ** 2
    return weight - lr * (m / (1 - betas[0] ** step)) / ((v / (1 - betas[1] ** step)).sqrt() + eps), m, v


@wrong("adamw", "by lr · decay of itself")
def adam_decay_alone(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient ** 2
    update = m / (1 - betas[0] ** step) / ((v / (1 - betas[1] ** step)).sqrt() + eps)
    return weight * (1 - decay) - lr * update, m, v


@wrong("adamw", "a little of the step as well")
def adam_decay_afterwards(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient ** 2
    new = weight - lr * (m / (1 - betas[0] ** step)) / ((v / (1 - betas[1] ** step)).sqrt() + eps)
    new = new - lr * decay * new
    return new, m, v


@wrong("adamw", "βˢ is wanted")
def adam_times_step(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient ** 2
    m_hat, v_hat = m / (1 - betas[0] * step), v / (1 - betas[1] * step)
    return weight - lr * (m_hat / (v_hat.sqrt() + eps) + decay * weight), m, v


@wrong("adamw", "first the power, then the difference")
def adam_powers_of_one_minus_beta(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient ** 2
    m_hat, v_hat = m / pow(1 - betas[0], step), v / pow(1 - betas[1], step)
    return weight - lr * (m_hat / (v_hat.sqrt() + eps) + decay * weight), m, v


@wrong("adamw", "`step` counts from 1 already")
def adam_from_zero(weight, gradient, mean, square, step, lr, betas, eps, decay):
    step = step - 1
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient ** 2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return weight - lr * (m_hat / (v_hat.sqrt() + eps) + decay * weight), m, v


@wrong("adamw", "so it is s itself")
def adam_from_two(weight, gradient, mean, square, step, lr, betas, eps, decay):
    step += 1
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient ** 2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return weight - lr * (m_hat / (v_hat.sqrt() + eps) + decay * weight), m, v


@wrong("adamw", "the corrected means")
def adam_overwrites_the_means(weight, gradient, mean, square, step, lr, betas, eps, decay):
    mean = betas[0] * mean + (1 - betas[0]) * gradient
    square = betas[1] * square + (1 - betas[1]) * gradient ** 2
    mean = mean / (1 - betas[0] ** step)
    square = square / (1 - betas[1] ** step)
    return weight - lr * (mean / (square.sqrt() + eps) + decay * weight), mean, square


@wrong("adamw", "you square the mean")
def adam_squares_the_mean(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * m ** 2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return weight - lr * (m_hat / (v_hat.sqrt() + eps) + decay * weight), m, v


@wrong("adamw", "RMSProp")
def adam_without_momentum(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient ** 2
    v_hat = v / (1 - betas[1] ** step)
    return (1 - lr * decay) * weight - lr * gradient / (v_hat.sqrt() + eps), m, v


@wrong("adamw", "the root is missing")
def adam_without_a_root(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient ** 2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return weight - lr * (m_hat / (v_hat + eps) + decay * weight), m, v


@wrong("adamw", "the first is for the mean")
def adam_betas_swapped(weight, gradient, mean, square, step, lr, betas, eps, decay):
    b2, b1 = betas
    m = b1 * mean + (1 - b1) * gradient
    v = b2 * square + (1 - b2) * gradient ** 2
    return weight - lr * (m / (1 - b1 ** step) / ((v / (1 - b2 ** step)).sqrt() + eps) + decay * weight), m, v


@wrong("adamw", "changes `weight`")
def adam_in_place(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient ** 2
    weight -= lr * decay * weight
    weight -= lr * m / (1 - betas[0] ** step) / ((v / (1 - betas[1] ** step)).sqrt() + eps)
    return weight, m, v


@wrong("adamw", "two things")
def adam_uncorrected_and_uphill(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient ** 2
    m_hat = m / (1 - betas[0] ** step)
    return weight + lr * m_hat / (v.sqrt() + eps) - lr * decay * weight, m, v


@wrong("adamw", "yours is one Tensor")
def adam_weight_only(weight, gradient, mean, square, step, lr, betas, eps, decay):
    mean = betas[0] * mean + (1 - betas[0]) * gradient
    square = betas[1] * square + (1 - betas[1]) * gradient ** 2
    m_hat, v_hat = mean / (1 - betas[0] ** step), square / (1 - betas[1] ** step)
    return weight - lr * (m_hat / (v_hat.sqrt() + eps) + decay * weight)


@wrong("adamw", "a square of its own")
def adam_with_one_size(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * (gradient ** 2).mean()
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return weight - lr * (m_hat / (v_hat.sqrt() + eps) + decay * weight), m, v


@wrong("adamw", "take the one that is given")
def adam_eps_fixed(weight, gradient, mean, square, step, lr, betas, eps, decay):
    m = betas[0] * mean + (1 - betas[0]) * gradient
    v = betas[1] * square + (1 - betas[1]) * gradient ** 2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return weight - lr * (m_hat / (v_hat.sqrt() + 1e-8) + decay * weight), m, v


@wrong("adamw")
def adam_clipped(weight, gradient, mean, square, step, lr, betas, eps, decay):
    g = gradient / max(1.0, gradient.norm().item())
    m = betas[0] * mean + (1 - betas[0]) * g
    v = betas[1] * square + (1 - betas[1]) * g ** 2
    m_hat, v_hat = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
    return weight - lr * (m_hat / (v_hat.sqrt() + eps) + decay * weight), m, v


# ---- what decays

@wrong("what_decays", "one dimension, stay as they are")
def shrinks_all_that_learns(model):
    return [n for n, p in model.named_parameters() if p.requires_grad]


@wrong("what_decays", "by the word `weight`")
def shrinks_weights(model):
    found = []
    for name, p in model.named_parameters():
        if p.requires_grad and name.split(".")[-1] == "weight":
            found.append(name)
    return found


@wrong("what_decays", "biases are vectors, too")
def shrinks_all_but_norms(model):
    return [n for n, p in model.named_parameters() if p.requires_grad and "norm" not in n.lower()]


@wrong("what_decays", "norms have weights of one dimension")
def shrinks_all_but_biases(model):
    return {n for n, p in model.named_parameters() if p.requires_grad and not n.endswith("bias")}


@wrong("what_decays", "other norms are called")
def shrinks_as_in_many_scripts(model):
    no_decay = ["bias", "norm"]
    return [n for n, p in model.named_parameters() if p.requires_grad and not any(word in n for word in no_decay)]


@wrong("what_decays", "linear layers alone")
def shrinks_linear_layers(model):
    names = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    return [n for n, p in model.named_parameters() if id(p) in names and p.requires_grad]


@wrong("what_decays", "two dimensions exactly")
def shrinks_matrices(model):
    return [n for n, p in model.named_parameters() if p.requires_grad and len(p.size()) == 2]


@wrong("what_decays", "let frozen weights decay")
def shrinks_the_frozen_too(model):
    return sorted(n for n, p in model.named_parameters() if p.dim() > 1)


@wrong("what_decays", "holds masks and frozen weights")
def shrinks_what_is_saved(model):
    return [n for n, x in model.state_dict().items() if x.ndim > 1]


@wrong("what_decays", "under both of its names")
def shrinks_twice(model):
    found = []
    for path, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False):
            if p.requires_grad and p.ndim > 1:
                found.append(path + "." + name if path else name)
    return found


@wrong("what_decays", "the whole name")
def shrinks_short_names(model):
    found = []
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if p.requires_grad and p.ndim > 1:
                found.append(name)
    return found


@wrong("what_decays", "not the parameters")
def shrinks_tensors(model):
    return [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]


@wrong("what_decays", "in pairs or in groups")
def shrinks_items(model):
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad and p.ndim >= 2]


@wrong("what_decays", "in pairs or in groups")
def shrinks_groups(model):
    decay = [n for n, p in model.named_parameters() if p.requires_grad and p.ndim >= 2]
    rest = [n for n, p in model.named_parameters() if p.requires_grad and p.ndim < 2]
    return decay, rest


@wrong("what_decays", "before the first step there is none")
def shrinks_with_gradients(model):
    return [n for n, p in model.named_parameters() if p.grad is not None and p.ndim >= 2]


@wrong("what_decays", "the wrong way round")
def shrinks_vectors(model):
    return [n for n, p in model.named_parameters() if p.requires_grad and p.ndim <= 1]


@wrong("what_decays", "the table of an embedding")
def shrinks_by_layer_names(model):
    return [f"{n}.weight" if n else "weight" for n, module in model.named_modules()
            if isinstance(module, nn.Linear) and module.weight.requires_grad]


@wrong("what_decays", "a table has two dimensions")
def shrinks_no_tables(model):
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    return [n for n, p in model.named_parameters()
            if p.requires_grad and p.ndim >= 2 and not any(p is table for table in tables)]


@wrong("what_decays", "go deeper")
def shrinks_children(model):
    own = [n for n, p in model.named_parameters(recurse=False) if p.requires_grad and p.ndim > 1]
    return own + [f"{name}.{n}" for name, child in model.named_children()
                  for n, p in child.named_parameters(recurse=False) if p.requires_grad and p.ndim > 1
                  and not (name == "head" and hasattr(model, "embedding") and p is model.embedding.weight)]


@wrong("what_decays", "let frozen weights decay")
def shrinks_if_any_learns(model):
    learns = any(p.requires_grad for p in model.parameters())
    return [n for n, p in model.named_parameters() if learns and p.ndim >= 2]


@wrong("what_decays", "of type dict")
def shrinks_counts(model):
    return {n: p.numel() for n, p in model.named_parameters() if p.requires_grad and p.ndim >= 2}


# ---- rates

@wrong("rates", "one rate for each epoch")
def rate_of_epochs(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    found = []
    for epoch in range(1, n_epochs + 1):
        if epoch <= warmup_steps:
            found.append(highest * epoch / warmup_steps)
        else:
            x = (epoch - warmup_steps) / (n_epochs - warmup_steps)
            found.append(lowest + 0.5 * (highest - lowest) * (1 + math.cos(math.pi * x)))
    return found


@wrong("rates", "come again in each epoch")
def rate_restarted(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    found = []
    for _ in range(n_epochs):
        for s in range(1, steps_per_epoch + 1):
            if s <= warmup_steps:
                found.append(highest * s / warmup_steps)
            else:
                x = (s - warmup_steps) / (steps_per_epoch - warmup_steps)
                found.append(lowest + 0.5 * (highest - lowest) * (1 + math.cos(math.pi * x)))
    return found


@wrong("rates", "count the steps from 0")
def rate_of_step_0(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [highest * s / warmup_steps if s < warmup_steps else
            lowest + (highest - lowest) * (1 + math.cos(math.pi * (s - warmup_steps) / (n - warmup_steps))) / 2
            for s in range(n)]


@wrong("rates", "one rate too many")
def rate_too_many(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [highest * s / warmup_steps if s < warmup_steps else
            lowest + (highest - lowest) * (1 + math.cos(math.pi * (s - warmup_steps) / (n - warmup_steps))) / 2
            for s in range(n + 1)]


@wrong("rates", "your fall begins at step 0")
def rate_fallen_already(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [highest * s / warmup_steps if s <= warmup_steps else
            lowest + (highest - lowest) * (1 + math.cos(math.pi * s / n)) / 2 for s in range(1, n + 1)]


@wrong("rates", "the peak is never reached")
def rate_product(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    found = []
    for s in range(1, n + 1):
        factor = min(s / warmup_steps, 1) if warmup_steps else 1
        found.append(factor * (lowest + (highest - lowest) * (math.cos(math.pi * s / n) + 1) / 2))
    return found


@wrong("rates", "a whole cosine")
def rate_whole(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    s = torch.arange(1, n_epochs * steps_per_epoch + 1)
    x = (s - warmup_steps) / max(1, n_epochs * steps_per_epoch - warmup_steps)
    fall = lowest + (highest - lowest) * (1 + torch.cos(2 * torch.pi * x)) / 2
    return torch.where(s <= warmup_steps, highest * s / max(1, warmup_steps), fall)


@wrong("rates", "in radians")
def rate_degrees(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [highest * s / warmup_steps if s <= warmup_steps else
            lowest + (highest - lowest) * (1 + math.cos(180 * (s - warmup_steps) / (n - warmup_steps))) / 2
            for s in range(1, n + 1)]


@wrong("rates", "ends at `lowest`")
def rate_to_zero(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [highest * s / warmup_steps if s <= warmup_steps else
            highest * (1 + math.cos(math.pi * (s - warmup_steps) / (n - warmup_steps))) / 2 for s in range(1, n + 1)]


@wrong("rates", "it is a rate itself")
def rate_of_a_fraction(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    found = []
    for s in range(1, n + 1):
        if s <= warmup_steps:
            factor = s / warmup_steps
        else:
            factor = lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * (s - warmup_steps) / (n - warmup_steps)))
        found.append(highest * factor)
    return found


@wrong("rates", "stop at the lowest rate on the way")
def rate_with_a_floor(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    found = []
    for s in range(1, n + 1):
        if s <= warmup_steps:
            found.append(highest * s / warmup_steps)
        else:
            found.append(max(lowest, highest * 0.5 * (1 + math.cos(math.pi * (s - warmup_steps) / (n - warmup_steps)))))
    return found


@wrong("rates", "you fall in a line")
def rate_straight(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [highest * s / warmup_steps if s <= warmup_steps else
            highest - (highest - lowest) * (s - warmup_steps) / (n - warmup_steps) for s in range(1, n + 1)]


@wrong("rates", "from 0, highest · s/w")
def rate_from_lowest(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [lowest + (highest - lowest) * s / warmup_steps if s <= warmup_steps else
            lowest + (highest - lowest) * (1 + math.cos(math.pi * (s - warmup_steps) / (n - warmup_steps))) / 2
            for s in range(1, n + 1)]


@wrong("rates", "before you divide by `warmup_steps`")
def rate_by_nothing(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    found = []
    for s in range(1, n + 1):
        rise = min(1.0, s / warmup_steps)
        x = max(0, s - warmup_steps) / max(1, n - warmup_steps)
        found.append(rise * (lowest + (highest - lowest) * (1 + math.cos(math.pi * x)) / 2))
    return found


@wrong("rates", "there is no fall")
def rate_by_no_fall(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    found = []
    for s in range(1, n + 1):
        x = (s - warmup_steps) / (n - warmup_steps)
        fall = lowest + (highest - lowest) * (1 + math.cos(math.pi * x)) / 2
        found.append(fall if s > warmup_steps else s / warmup_steps * highest)
    return found


@wrong("rates", "there is no fall")
def rate_below_the_peak(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [highest * s / warmup_steps if s < warmup_steps else
            lowest + (highest - lowest) * (1 + math.cos(math.pi * (s - warmup_steps) / (n - warmup_steps))) / 2
            for s in range(1, n + 1)]


@wrong("rates", "multiply them by `highest`")
def rate_as_a_factor(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n, r = n_epochs * steps_per_epoch, lowest / highest
    return [s / warmup_steps if s <= warmup_steps else
            r + (1 - r) * (1 + math.cos(math.pi * (s - warmup_steps) / (n - warmup_steps))) / 2 for s in range(1, n + 1)]


@wrong("rates", "`warmup_steps` are steps")
def rate_warm_for_epochs(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n, w = n_epochs * steps_per_epoch, warmup_steps * steps_per_epoch
    return [highest * s / w if s <= w else lowest + (highest - lowest) * (1 + math.cos(math.pi * (s - w) / (n - w))) / 2
            for s in range(1, n + 1)]


@wrong("rates", "lists in it")
def rate_in_lists(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [[highest * s / n for s in range(1, steps_per_epoch + 1)] for _ in range(n_epochs)]


@wrong("rates", "your cosine goes from 1 to −1")
def rate_below_zero(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [highest * s / warmup_steps if s <= warmup_steps else
            lowest + (highest - lowest) * math.cos(math.pi * (s - warmup_steps) / (n - warmup_steps))
            for s in range(1, n + 1)]


@wrong("rates", "two things")
def rate_straight_from_the_lowest(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [lowest + (highest - lowest) * s / warmup_steps if s <= warmup_steps else
            highest - (highest - lowest) * (s - warmup_steps) / (n - warmup_steps) for s in range(1, n + 1)]


@wrong("rates")
def rate_rounded(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [round(highest * s / warmup_steps if s <= warmup_steps else
            lowest + (highest - lowest) * (1 + math.cos(math.pi * (s - warmup_steps) / (n - warmup_steps))) / 2, 3)
            for s in range(1, n + 1)]


@wrong("rates")
def rate_squared(n_epochs, steps_per_epoch, warmup_steps, highest, lowest):
    n = n_epochs * steps_per_epoch
    return [highest * (s / warmup_steps) ** 2 if s <= warmup_steps else
            lowest + (highest - lowest) * (1 + math.cos(math.pi * (s - warmup_steps) / (n - warmup_steps))) / 2
            for s in range(1, n + 1)]


# ---- orthogonalize

@wrong("orthogonalize", "do not divide the matrix by its norm")
def orthogonal_raw(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + b * s @ x + c * s @ s @ x
    return x


@wrong("orthogonalize", "the largest number")
def orthogonal_by_max(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix.abs().max() + 1e-9)
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + b * s @ x + c * s @ s @ x
    return x


@wrong("orthogonalize", "the spectral norm")
def orthogonal_by_spectrum(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (torch.linalg.svdvals(matrix)[0] + 1e-12)
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


@wrong("orthogonalize", "each row by its own length")
def orthogonal_rows(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = F.normalize(matrix, dim=-1)
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


@wrong("orthogonalize", "the sum of squares")
def orthogonal_without_a_root(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix ** 2).sum().clamp(min=1e-12)
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


@wrong("orthogonalize", "zeros become 0/0")
def orthogonal_nan(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / matrix.pow(2).sum().sqrt()
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


@wrong("orthogonalize", "powers of the numbers")
def orthogonal_elementwise(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix.norm() + 1e-8)
    for _ in range(n_steps):
        x = a * x + b * x.pow(3) + c * x.pow(5)
    return x


@wrong("orthogonalize", "square the numbers of X Xᵀ")
def orthogonal_half_elementwise(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix.norm() + 1e-8)
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s * s) @ x
    return x


@wrong("orthogonalize", "XᵀX stands on the left")
def orthogonal_wrong_side(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix.norm() + 1e-8)
    for _ in range(n_steps):
        s = x.T @ x
        x = a * x + b * torch.mm(s, x) + c * torch.mm(s, torch.mm(s, x))
    return x


@wrong("orthogonalize", "by its transpose")
def orthogonal_powers(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix.norm() + 1e-8)
    for _ in range(n_steps):
        x = a * x + b * x @ x @ x + c * x @ x @ x @ x @ x
    return x


@wrong("orthogonalize", "b and c are exchanged")
def orthogonal_swapped(matrix, coefficients, n_steps):
    a, c, b = coefficients
    x = matrix / (matrix.norm() + 1e-8)
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


@wrong("orthogonalize", "Jordan's coefficients")
def orthogonal_fixed(matrix, coefficients, n_steps):
    x = matrix / (matrix.norm() + 1e-8)
    for _ in range(n_steps):
        s = x @ x.T
        x = 3.4445 * x + (-4.7750 * s + 2.0315 * s @ s) @ x
    return x


@wrong("orthogonalize", "is there a `return` in the loop")
def orthogonal_once(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix.norm() + 1e-8)
    for _ in range(n_steps):
        s = x @ x.T
        y = a * x + (b * s + c * s @ s) @ x
    return y


@wrong("orthogonalize", "anew in each step")
def orthogonal_with_the_first_square(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix.norm() + 1e-8)
    s = x @ x.T
    for _ in range(n_steps):
        x = a * x + (b * s + c * s @ s) @ x
    return x


@wrong("orthogonalize", "one step too few")
def orthogonal_range(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix.norm() + 1e-8)
    for _ in range(1, n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


@wrong("orthogonalize", "tall matrices come back lying down")
def orthogonal_lying(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix.norm() + 1e-8)
    if x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


@wrong("orthogonalize", "U Vᵀ itself")
def orthogonal_exactly(matrix, coefficients, n_steps):
    U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U @ Vh


@wrong("orthogonalize", "QR")
def orthogonal_qr(matrix, coefficients, n_steps):
    Q, _ = torch.linalg.qr(matrix, mode="reduced")
    return Q


@wrong("orthogonalize", "16 bits")
def orthogonal_as_published(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


@wrong("orthogonalize", "changes `matrix`")
def orthogonal_in_place(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix.div_(matrix.norm() + 1e-8)
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


@wrong("orthogonalize", "the step that Muon takes")
def orthogonal_scaled(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix.norm() + 1e-8)
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x * max(1, matrix.size(0) / matrix.size(1)) ** 0.5


@wrong("orthogonalize", "two things")
def orthogonal_by_max_swapped(matrix, coefficients, n_steps):
    a, c, b = coefficients
    x = matrix / matrix.abs().max().clamp(min=1e-9)
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


@wrong("orthogonalize")
def orthogonal_seven(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix / (matrix.norm() + 1e-8)
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + b * s @ x + c * s @ s @ x + 0.01 * s @ s @ s @ x
    return x


@wrong("orthogonalize")
def orthogonal_centred(matrix, coefficients, n_steps):
    a, b, c = coefficients
    x = matrix - matrix.mean()
    x = x / (x.norm() + 1e-8)
    for _ in range(n_steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x
