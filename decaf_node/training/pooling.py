"""A sequence classifier that averages the last hidden states; under skewed labels it learns where ``[CLS]`` fails."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput

HEAD = "classifier"


class MeanPooledClassifier(nn.Module):
    """``classifier(mean of the encoder's last hidden states over the tokens that are not padding)``.

    ``config`` is the encoder's, as PEFT and transformers' Trainer look for one.
    """

    accepts_loss_kwargs = False

    def __init__(self, encoder: Any, labels: int) -> None:
        super().__init__()
        self.config = encoder.config
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.config.hidden_size, labels)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(torch.float32)
        pooled = (hidden.float() * mask).sum(1) / mask.sum(1).clamp_min(1.0)
        logits = self.classifier(pooled)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
