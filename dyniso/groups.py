"""Which weights of a model AdamO pulls, and how: found from the model, with what is left out and why.

A matrix is pulled if it is the map of its layer: Linear, ordinary convolutions, attention's projections (packed ones as
three maps) and recurrent gates (four, three or one map). The head is found from the way that the model computes.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from .checks import require, require_keys, require_type
from .heads import find_heads
from .matrices import gates_of
from .options import ADAM_OPTIONS, OPTIONS
from .pull import Blocks, require_blocks

PACKED = ("qkv", "c_attn", "in_proj", "Wqkv")  # such layers of width 3 * in hold q, k and v, in this order


class Role(NamedTuple):
    """What a parameter is to its module: maps in rows and columns of its blocks, or why it is not pulled."""

    blocks: Blocks | None
    text: str


class IsometryGroups(list[dict[str, Any]]):
    """Parameter groups for an optimizer, which print what is pulled, how, and what is left out and why.

    Attributes: pulled and left_out, name of each matrix -> how it is taken, or why it is not; vectors are not listed.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], pulled: Mapping[str, str], left_out: Mapping[str, str]):
        super().__init__(groups)
        self.pulled, self.left_out = dict(pulled), dict(left_out)

    def __repr__(self) -> str:
        rows = [f"pulled towards an isometry ({len(self.pulled)}):", *listed(self.pulled)]
        rows += [f"plain Adam, besides vectors ({len(self.left_out)}):", *listed(self.left_out)]
        return "\n".join(rows)


def listed(entries: Mapping[str, str]) -> list[str]:
    """One line a name, in two columns."""
    width = max(map(len, entries), default=0)
    return [f"  {name:<{width}}  {text}" for name, text in entries.items()]


def isometry_groups(
    model: nn.Module,
    head: str | Sequence[str] = "exclude",
    example: Any = None,
    split: Mapping[str, int] | None = None,
    **options: Any,
) -> IsometryGroups:
    """Split a model's parameters for AdamO: the maps of its layers with the penalty, all else plain Adam.

    Pulled are the weights of Linear layers, ordinary convolutions, attention (q, k and v as three maps), recurrent
    layers (each gate a map) and the transposed `Conv1D` of GPT-2. All else is plain Adam: vectors, embeddings and
    whatever is tied to one, bare parameters such as position codes, parametrised weights (orthogonal by construction),
    grouped and transposed convolutions (their reshaped kernel is not the map's matrix), and the head, which the paper
    leaves unrestricted in Lipschitz nets and the authors' code leaves out everywhere. `print` the result.

    Args:
        model: any module; a compiled or DDP-wrapped one too.
        head: "exclude" (the layers whose output is the model's output), "include", or module names, e.g.
            ["actor.head", "critic.head"]. It is found from the order of an nn.Sequential, from `torch.fx`, or, where
            they cannot tell, from one forward pass of `example`; never from the order of registration.
        example: inputs of one forward pass: a tensor, a tuple of arguments, or a dict of named ones. Nothing changes.
        split: name or pattern of a layer -> how many maps its weight holds, e.g. {"*.to_kv": 2}; 1 for one map.
            Layers called `qkv`, `c_attn`, `in_proj` or `Wqkv` with three times as many outputs as inputs hold three.
        options: put into the pulled groups, e.g. isometry_strength=0.01.
    Returns:
        Parameter groups: pulled, one for each way of packing, and last the plain one (isometry_strength 0).
    Raises:
        TypeError: parameters in place of a module.
        ValueError: an unknown head, option or layer to split; a head that is not evident (says how to name it); no
            matrix to pull; parameters of lazy layers that have no shape yet.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> isometry_groups(net, isometry_strength=0.1)
    pulled towards an isometry (1):
      0.weight  8 x 4
    plain Adam, besides vectors (1):
      2.weight  head
    """
    require_type("model", model, nn.Module, "a module, not its parameters: isometry_groups(model)")
    require_keys("isometry_groups", options, (*OPTIONS, *ADAM_OPTIONS))
    roles = roles_of(model, split or {})
    heads = named_heads(model, head, example, roles)
    many_axes = with_two_axes(model)
    roles |= {name: Role(None, "head") for name, p in many_axes.items() if id(p) in heads and roles[name].blocks}
    return grouped(model, roles, options)


def grouped(model: nn.Module, roles: Mapping[str, Role], options: dict[str, Any]) -> IsometryGroups:
    """The groups of some roles; each parameter is in one, under the first of its names."""
    by_blocks: dict[Blocks, list[Tensor]] = {}
    rest: list[Tensor] = []
    pulled: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name, p in model.named_parameters():
        role = roles.get(name, Role(None, ""))
        if role.blocks is None:
            rest.append(p)
            left_out |= {name: role.text} if role.text else {}
        else:
            by_blocks.setdefault(role.blocks, []).append(p)
            pulled[name] = role.text if p.requires_grad else f"{role.text}, but frozen: not pulled without a gradient"
    if not pulled:
        raise ValueError(
            "the model has no Linear, convolution, attention or recurrent weight outside its head; "
            "nothing to regularise"
        )
    groups = [
        {"params": params, **({} if blocks == (1, 1) else {"isometry_blocks": blocks}), **options}
        for blocks, params in sorted(by_blocks.items(), key=lambda item: sum(item[0]))
    ]
    return IsometryGroups([*groups, {"params": rest, "isometry_strength": 0.0}], pulled, left_out)


def with_two_axes(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter of two or more axes by the first of its names; ValueError for one of a lazy layer."""
    named = dict(model.named_parameters())
    for name, p in named.items():
        if isinstance(p, UninitializedParameter):
            raise ValueError(
                f"{name!r} has no shape yet; run one batch through the model before isometry_groups(model)"
            )
    return {name: p for name, p in named.items() if p.ndim > 1}


def roles_of(model: nn.Module, split: Mapping[str, int]) -> dict[str, Role]:
    """What each matrix is, by the first of its names; one with several owners is plain if one of them says so."""
    first = {id(p): name for name, p in with_two_axes(model).items()}
    unused, roles = set(split), dict[str, Role]()
    for path, module in model.named_modules(remove_duplicate=False):
        for own, p in module.named_parameters(recurse=False):
            if id(p) in first:
                role = role_of(module, path, own, p)
                for pattern, maps in split.items():
                    if role.blocks and (fnmatch.fnmatch(path, pattern) or fnmatch.fnmatch(f"{path}.{own}", pattern)):
                        unused.discard(pattern)
                        role = packed(p, maps, beside=is_transposed(module))
                known = roles.get(first[id(p)])
                if known is None or (known.blocks and not role.blocks):
                    roles[first[id(p)]] = role
    for pattern in sorted(unused):
        require("split", pattern, [name.rpartition(".")[0] or name for name, role in roles.items() if role.blocks])
    return roles


def role_of(module: nn.Module, path: str, own: str, p: Tensor) -> Role:
    """What a matrix is to the module that owns it."""
    kind = type(module).__name__
    if not p.is_floating_point():
        return Role(None, "no real numbers")
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return Role(None, "embedding")
    if isinstance(module, nn.modules.conv._ConvNd) and own == "weight":
        odd = "transposed" if module.transposed else f"in {module.groups} groups" if module.groups > 1 else ""
        return Role(None, f"convolution, {odd}") if odd else packed(p, 1)
    if isinstance(module, nn.MultiheadAttention) and own.endswith("proj_weight"):
        return packed(p, 3 if own == "in_proj_weight" else 1)
    if isinstance(module, nn.RNNBase | nn.RNNCellBase) and own.startswith("weight"):
        return packed(p, 1 if own.startswith("weight_hr") else len(gates_of(module)) or 1)
    if own == "weight" and (isinstance(module, nn.Linear) or is_transposed(module)):
        inputs, outputs = p.shape if is_transposed(module) else p.shape[::-1]
        holds_three = path.rpartition(".")[2] in PACKED and outputs == 3 * inputs
        return packed(p, 3 if holds_three else 1, beside=is_transposed(module))
    return Role(None, "parametrised" if kind == "ParametrizationList" else f"a parameter of {kind} of unknown use")


def is_transposed(module: nn.Module) -> bool:
    """Whether a module is a linear layer with its weight as (in, out), as `Conv1D` of the transformers library is."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and not isinstance(module, nn.Conv1d)


def packed(p: Tensor, maps: int, beside: bool = False) -> Role:
    """A matrix that holds some maps, below or beside each other.

    >>> packed(nn.Linear(4, 12).weight, 3)
    Role(blocks=(3, 1), text='3 maps of 4 x 4')
    """
    blocks = (1, maps) if beside else (maps, 1)
    require_blocks(p, 0, blocks)
    shape = [p.shape[0] // blocks[0], p[0].numel() // blocks[1]]
    size = " x ".join(map(str, shape))
    return Role(blocks, size if maps == 1 else f"{maps} maps of {size}")


def named_heads(model: nn.Module, head: str | Sequence[str], example: Any, roles: Mapping[str, Role]) -> set[int]:
    """The parameters of the head, by id: those that the caller named, or that the model's way to compute shows."""
    require_type("head", head, (str, Sequence), "'exclude', 'include', or names of modules")
    if isinstance(head, str) and head in ("exclude", "include"):
        found = find_heads(model, example) if head == "exclude" else []
        return {id(p) for p in found}
    modules, ids = dict(model.named_modules()), set()
    layers = [name.rpartition(".")[0] for name, role in roles.items() if role.blocks]
    for name in sorted({head} if isinstance(head, str) else set(head)):
        if name not in modules:
            require("head", name, ("exclude", "include", *layers))
        ids |= {id(p) for p in modules[name].parameters() if p.ndim > 1}
    return ids
