"""AdamW over what is trained."""

import torch

from crosswatch.training.settings import OptimConfig


def build_optimizer(config: OptimConfig, module: torch.nn.Module) -> torch.optim.AdamW:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        trained, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
