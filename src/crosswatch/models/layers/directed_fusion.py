"""CAAM's fusion: attentions of one modality's tokens to another's, in groups that score together.

Shape letters: B batch, L tokens, F what a group knows, H heads, Q queries, K keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from crosswatch.models.layers.cross_attention import AttentionBlock
from crosswatch.models.settings.caam import CaamConfig, Directed
from crosswatch.models.tokens import Tokens

Streams = dict[str, Tokens]
LINEAR_STD = 0.02


class Known(NamedTuple):
    """What each group knows (B, F), and the maps (B, H, Q, K) on which it rests."""

    groups: dict[str, Tensor]
    maps: dict[str, Tensor]


class ParallelFusion(nn.Module):
    """Every attention starts from the embedded tokens; a group knows the means of its queries.

    With fixed keys the queries of a group are one sequence with one mean; else the group's means
    stand side by side.
    """

    def __init__(self, config: CaamConfig) -> None:
        super().__init__()
        self.groups = config.groups
        self.one_mean = config.topology == "fixed_key"
        self.shared = config.share_block
        attentions = [directed.name for group in self.groups.values() for directed in group]
        self.asking = nn.ModuleDict(
            {name: Asking(config, name) for name in (["shared"] if self.shared else attentions)}
        )
        self.widths = {
            name: config.width * (1 if self.one_mean else len(group))
            for name, group in self.groups.items()
        }

    def forward(self, tokens: Streams) -> Known:
        known, maps = {}, {}
        for name, group in self.groups.items():
            queries = []
            for directed in group:
                query, maps[directed.name] = self.attend(directed, tokens)
                queries.append(query)
            if self.one_mean:
                known[name] = one_sequence(queries).mean()
            else:
                known[name] = torch.cat([query.mean() for query in queries], dim=-1)
        return Known(known, maps)

    def attend(self, directed: Directed, tokens: Streams) -> tuple[Tokens, Tensor]:
        """The query's tokens after they asked the key's, and the map of the last block."""
        asking = self.asking["shared" if self.shared else directed.name]
        asked: tuple[Tokens, Tensor] = asking(tokens[directed.query], tokens[directed.key])
        return asked


class StackedFusion(nn.Module):
    """One attention after the other, each from what those before made of the tokens; a group knows
    the means of its pair in the end."""

    def __init__(self, config: CaamConfig) -> None:
        super().__init__()
        self.groups, self.stack = config.groups, config.stack
        count = 1 if config.share_block else len(self.stack)
        self.asking = nn.ModuleList(Asking(config, "stacked", depth=1) for _ in range(count))
        self.widths = {name: config.width * len(group) for name, group in self.groups.items()}

    def forward(self, tokens: Streams) -> Known:
        maps = {}
        for at, (key, query) in enumerate(self.stack):
            asking = self.asking[at % len(self.asking)]
            asked, maps[f"{at}_{query}_asks_{key}"] = asking(tokens[query], tokens[key])
            tokens = tokens | {query: asked}
        known = {
            name: torch.cat([tokens[directed.query].mean() for directed in group], dim=-1)
            for name, group in self.groups.items()
        }
        return Known(known, maps)


class MeanToken(nn.Module):
    """Of one modality, whose tokens have nobody to ask."""

    def __init__(self, config: CaamConfig) -> None:
        super().__init__()
        self.widths = dict.fromkeys(config.groups, config.width)

    def forward(self, tokens: Streams) -> Known:
        return Known({name: stream.mean() for name, stream in tokens.items()}, {})


def fusion_of(config: CaamConfig) -> ParallelFusion | StackedFusion | MeanToken:
    if len(config.used) == 1:
        return MeanToken(config)
    if config.topology == "stacked_alternating":
        return StackedFusion(config)
    return ParallelFusion(config)


class Asking(nn.Module):
    """One attention in `depth` blocks: each asks with the answers of the one before; keys stay."""

    def __init__(self, config: CaamConfig, name: str, depth: int | None = None) -> None:
        super().__init__()
        blocks = [fusion_block(config, name) for _ in range(depth or config.depth or 1)]
        self.first, self.others = blocks[0], nn.ModuleList(blocks[1:])

    def forward(self, query: Tokens, key: Tokens) -> tuple[Tokens, Tensor]:
        asked = {"answers_BKD": key.values_BLD, "valid_BK": key.valid_BL}
        found = self.first(query.values_BLD, **asked)
        for block in self.others:
            found = block(found.values_BQD, **asked)
        return Tokens(found.values_BQD, query.valid_BL), found.weight_BHQK.detach()


def fusion_block(config: CaamConfig, name: str) -> AttentionBlock:
    block = AttentionBlock(
        config.width,
        config.heads,
        norm="pre",
        hidden_width=config.hidden_width,
        softmax=config.softmax,
        eps=config.eps,
        name=f"CAAM's attention ({name})",
    )
    for part in block.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=LINEAR_STD)
            nn.init.zeros_(part.bias)
    return block


def one_sequence(streams: list[Tokens]) -> Tokens:
    values, valid = zip(*streams, strict=True)
    return Tokens(torch.cat(values, dim=1), torch.cat(valid, dim=1))
