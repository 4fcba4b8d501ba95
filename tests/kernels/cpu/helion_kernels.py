"""Kernels in Helion, each with a fixed configuration. Importing this needs Helion."""

# mypy: ignore-errors=True
from __future__ import annotations

import helion
import helion.language as hl
import torch
from torch import Tensor


def fixed(*block_sizes: int, **options):
    """Helion's decorator with one configuration: nothing is tuned."""
    return helion.kernel(config=helion.Config(block_sizes=list(block_sizes), **options), static_shapes=False)


@fixed(16, 32)
def add(x: Tensor, y: Tensor) -> Tensor:
    x, y = torch.broadcast_tensors(x, y)
    out = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, y.dtype), device=x.device)
    for tile in hl.tile(out.size()):
        out[tile] = x[tile] + y[tile]
    return out


@fixed(8, 64)
def gelu_of_sum(x: Tensor, bias: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for rows, columns in hl.tile(x.size()):
        out[rows, columns] = torch.nn.functional.gelu(x[rows, columns] + bias[columns])
    return out


@fixed(128)
def gated(x: Tensor, y: Tensor) -> Tensor:
    out = torch.empty_like(x)
    first, second, flat = x.view(-1), y.view(-1), out.view(-1)
    for tile in hl.tile(x.numel()):
        gate = first[tile]
        flat[tile] = gate * torch.sigmoid(gate) * second[tile]
    return out


@fixed(4)
def softmax(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        out[rows, :] = torch.softmax(x[rows, :], dim=1)
    return out


@fixed(4, 32, 16)
def online_softmax(x: Tensor) -> Tensor:
    """In two passes over blocks of columns."""
    out = torch.empty_like(x)
    height, width = x.size()
    for rows in hl.tile(height):
        largest = hl.full([rows], float("-inf"), dtype=torch.float32)
        total = hl.zeros([rows], dtype=torch.float32)
        for columns in hl.tile(width):
            values = x[rows, columns]
            next_largest = torch.maximum(largest, torch.amax(values, dim=1))
            total = total * torch.exp(largest - next_largest) + torch.exp(values - next_largest[:, None]).sum(
                dim=1
            )
            largest = next_largest
        for columns in hl.tile(width):
            out[rows, columns] = torch.exp(x[rows, columns] - largest[:, None]) / total[:, None]
    return out


@fixed(4)
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        values = x[rows, :].to(torch.float32)
        centered = values - values.mean(dim=1)[:, None]
        variance = (centered * centered).mean(dim=1)
        out[rows, :] = centered * torch.rsqrt(variance + 1e-5)[:, None] * weight[:] + bias[:]
    return out


@fixed(2)
def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        values = x[rows, :].to(torch.float32)
        scale = torch.rsqrt((values * values).mean(dim=1) + 1e-6)
        out[rows, :] = (values * scale[:, None] * weight[:]).to(x.dtype)
    return out


@fixed(4, reduction_loops=[16])
def row_sums(x: Tensor) -> Tensor:
    out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    for rows in hl.tile(x.size(0)):
        out[rows] = x[rows, :].sum(dim=1)
    return out


@fixed(16, 16)
def column_sums(x: Tensor) -> Tensor:
    """Blocks of rows are added by atomics."""
    out = torch.zeros([x.size(1)], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile(x.size()):
        hl.atomic_add(out, [columns], x[rows, columns].sum(dim=0))
    return out


@fixed(32, 16, 16)
def product(x: Tensor, y: Tensor) -> Tensor:
    m, k = x.size()
    _, n = y.size()
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile([m, n]):
        total = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            total = torch.addmm(total, x[rows, inner], y[inner, columns])
        out[rows, columns] = total.to(x.dtype)
    return out


@fixed(16, 32, 16)
def product_bias_relu(x: Tensor, y: Tensor, bias: Tensor) -> Tensor:
    m, k = x.size()
    _, n = y.size()
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile([m, n]):
        total = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            total = hl.dot(x[rows, inner], y[inner, columns], acc=total)
        out[rows, columns] = torch.relu(total + bias[columns])
    return out


@fixed(1, 16, 16, 16)
def batched_product(x: Tensor, y: Tensor) -> Tensor:
    b, m, k = x.size()
    _, _, n = y.size()
    out = torch.empty([b, m, n], dtype=x.dtype, device=x.device)
    for batch, rows, columns in hl.tile([b, m, n]):
        total = hl.zeros([batch, rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            total = torch.baddbmm(total, x[batch, rows, inner], y[batch, inner, columns])
        out[batch, rows, columns] = total
    return out


@fixed(1, 16, 16)
def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Blocks of keys one after the other, with a running maximum."""
    batch, length = query.size(0), query.size(1)
    keys, width = key.size(1), hl.specialize(query.size(2))
    out = torch.empty_like(query)
    transposed = key.transpose(1, 2)
    for heads, rows in hl.tile([batch, length]):
        largest = hl.full([heads, rows], float("-inf"), dtype=torch.float32)
        total = hl.zeros([heads, rows], dtype=torch.float32)
        result = hl.zeros([heads, rows, width], dtype=torch.float32)
        q = query[heads, rows, :]
        for columns in hl.tile(keys):
            scores = torch.bmm(q, transposed[heads, :, columns]) * width**-0.5
            next_largest = torch.maximum(largest, torch.amax(scores, -1))
            shares = torch.exp(scores - next_largest[:, :, None])
            old = torch.exp(largest - next_largest)
            total = total * old + shares.sum(-1)
            result = torch.baddbmm(result * old[:, :, None], shares, value[heads, columns, :])
            largest = next_largest
        out[heads, rows, :] = result / total[:, :, None]
    return out


@fixed(8, 16)
def embedding(words: Tensor, table: Tensor) -> Tensor:
    out = torch.empty([words.size(0), table.size(1)], dtype=table.dtype, device=table.device)
    for places, columns in hl.tile(out.size()):
        out[places, columns] = table[words[places], columns]
    return out


@fixed(4)
def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    rows_count, classes = logits.size()
    losses = torch.empty([rows_count], dtype=torch.float32, device=logits.device)
    flat = logits.view(-1)
    for rows in hl.tile(rows_count):
        picked = hl.load(flat, [rows.index * classes + target[rows]])
        values = logits[rows, :]
        largest = torch.amax(values, dim=1)
        losses[rows] = torch.log(torch.exp(values - largest[:, None]).sum(dim=1)) + largest - picked
    return losses


@fixed(16)
def cumulative_sums(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        out[rows, :] = torch.cumsum(x[rows, :], dim=1)
    return out


@fixed(16, 16)
def transposed(x: Tensor) -> Tensor:
    out = torch.empty([x.size(1), x.size(0)], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile(x.size()):
        out[columns, rows] = x[rows, columns].transpose(0, 1)
    return out


@fixed(32)
def exponential_gradient(dy: Tensor, y: Tensor) -> Tensor:
    dx = torch.empty_like(y)
    for tile in hl.tile(y.size()):
        dx[tile] = dy[tile] * y[tile]
    return dx
