"""The entropy of a particle, inferred from what its neighbours do."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gnn_metriplectic.geometry import Pairs, dot
from gnn_metriplectic.terms.jets import SpeciesShift
from gnn_metriplectic.terms.linear import Linear, linear


class EntropyEncoder(nn.Module):
    """Message passing from (|r_ij|, |v_ij|², (e_ij·v_ij)²) to one number a particle.

    Unchanged by numbering, translation, rotation, reflection, Galilean boost and time reversal.
    Messages are symmetric in the pair, so each is computed once, and fade out at the cutoff. Each
    ``hop`` lets a particle see one cutoff further.

    The output is standardised to mean 0 and variance 1 over the training set: the value uses
    running statistics, and the gradient their estimate from the batch, so that shrinking the
    entropy (which would raise the likelihood without bound) has no gradient.
    """

    def __init__(self, cutoff: float, *, speed: float, width: int, hops: int, species: int = 1) -> None:
        super().__init__()
        if hops < 1:
            raise ValueError(f"the entropy encoder has {hops} hops; it needs at least 1")
        self.cutoff, self.speed = cutoff, speed
        self.lift = Linear(3, width)
        self.shift = SpeciesShift(species, width)
        self.messages = nn.ModuleList(Linear(width, width) for _ in range(hops))
        self.updates = nn.ModuleList(Linear(width + (width if k else 0), width) for k in range(hops))
        self.head = nn.Linear(width, 1)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.ones(()))

    def raw(self, pairs: Pairs, velocities: Tensor, species: Tensor | None = None) -> Tensor:
        """Entropy before standardisation, ``[N]``, from velocities ``[N, D]``."""
        rho = pairs.distance / self.cutoff
        relative = pairs.relative(velocities) / self.speed
        along = dot(relative, pairs.direction)
        # logarithms tame the tails of the squared velocities
        features = torch.stack(
            [2.0 * rho - 1.0, torch.log1p(dot(relative, relative)) - 1.0, torch.log1p(along * along) - 0.5],
            dim=1,
        )
        ends = (None, None) if species is None else pairs.ends(species)
        shift = self.shift(*ends)
        edge = self.lift(features)
        if shift is not None:
            edge = edge + shift
        window = (1.0 - rho * rho).clamp(min=0.0).square().unsqueeze(1)
        weight = pairs.total(window)
        node = None
        for message, update in zip(self.messages, self.updates, strict=True):
            if node is not None:
                edge = edge + pairs.sum_of_ends(node)
            # the message is affine, so that it is applied to the sum: once a particle, not once a pair
            heard = pairs.total(window * nn.functional.silu(edge))
            gathered = (linear(heard, message.weight) + weight * message.bias) / (0.1 + weight)
            node = nn.functional.silu(update(gathered if node is None else torch.cat([gathered, node], dim=1)))
        return self.head(node).squeeze(1)

    def forward(self, pairs: Pairs, velocities: Tensor, species: Tensor | None = None) -> Tensor:
        """Standardised entropy ``[N]``."""
        return self.standardise(self.raw(pairs, velocities, species))

    def standardise(
        self, raw: Tensor, counted: Tensor | None = None, average: Callable[[Tensor], Tensor] = lambda mean: mean
    ) -> Tensor:
        """Standardised entropy from the raw.

        Args:
            raw: ``[N]``.
            counted: raw entropies of a training batch, through which the gradient of the statistics flows.
            average: makes of a mean over this batch that over the batches of all processes.
        """
        mean, variance = self.mean, self.variance
        if counted is not None:
            # moments about the running mean are linear in the sample: unbiased whatever a batch holds
            first, second = average(counted.mean()), average(((counted - mean) ** 2).mean())
            mean = mean + first - first.detach()
            variance = variance + second - second.detach()
        return (raw - mean) / torch.sqrt(variance)

    @torch.no_grad()
    def follow(self, mean: Tensor, variance: Tensor, weight: float) -> None:
        """Move the running statistics towards those of a batch by ``weight`` in [0, 1]."""
        step = mean - self.mean
        self.mean.add_(weight * step)
        self.variance.mul_(1.0 - weight).add_(weight * variance + weight * (1.0 - weight) * step**2)


def negentropy(values: Tensor) -> Tensor:
    """How far a sample of mean 0 and variance 1 is from Gaussian: ½ ln(2πe) - H, in nats, 0-dim.

    H is Vasicek's estimate from the spacings of the ordered sample (J. R. Stat. Soc. B 38, 54, 1976),
    with neighbours √n apart; differentiable in ``values`` ``[n]``.

    Added to the negative log-likelihood of S' given x it makes the objective the information that the
    present has about the future, which no transformation of S can raise. A fixed variance alone
    leaves one open: outliers carry the variance while all other entropies shrink to a point.
    """
    count = values.numel()
    reach = max(int(count**0.5), 1)
    ordered = torch.sort(values).values
    spacing = ordered[2 * reach :] - ordered[: -2 * reach]
    floor = 1e-6 * reach / count
    differential = torch.log((count + 1) / (2.0 * reach) * spacing.clamp(min=floor)).mean()
    return 0.5 * math.log(2.0 * math.pi * math.e) - differential
