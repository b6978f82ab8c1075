"""Double-DQN over a finite set of actions, where the reward of every action in every state is known beforehand.

Van Hasselt, Guez & Silver 2016 (arXiv 1509.06461): the online network chooses the action in the next state, the target
network says what it is worth. Replay and target network as in Mnih et al. 2015 (Nature 518, 529–533).
"""

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.seeding import generator, integer_seed
from pipeline.study.params import Params

Share = Annotated[float, Field(ge=0, le=1)]
Layers = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(max_length=8)]


class DQNConfig(Params):
    """What the agent may do, what it is paid for, and how it learns."""

    weights: Annotated[
        tuple[Share, ...], Field(min_length=2, max_length=101, json_schema_extra={"uniqueItems": True})
    ] = Field(tuple(step / 10 for step in range(11)), description="the actions: weights of the first member")
    reward: Literal["log_likelihood", "margin"] = Field(
        "log_likelihood",
        description="of the fused probability p: log p(label), or p(label) − p(other label)",
    )
    discount: float = Field(
        0.0, ge=0, lt=1, description="of the next sample's value: 0 is a bandit, each sample an episode of its own"
    )
    hidden: Layers = Field((32,), min_length=1, description="units per layer of the network")
    steps: int = Field(1000, ge=1, le=1_000_000, description="updates of the network")
    batch: int = Field(64, ge=1, description="samples acted on, and drawn from the replay buffer, per step")
    replay: int = Field(10_000, ge=1, le=10_000_000, description="transitions that the buffer holds, the latest ones")
    target_update: int = Field(100, ge=1, description="steps between two copies of the network to the target network")
    learning_rate: float = Field(0.003, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    epsilon_start: float = Field(1.0, ge=0, le=1, description="share of random actions in the first step")
    epsilon_end: float = Field(0.05, ge=0, le=1, description="and from the end of the schedule on")
    epsilon_share: float = Field(0.5, gt=0, le=1, description="share of the steps until then, in a straight line")


def learn(states: Tensor, rewards: Tensor, last: Tensor, config: DQNConfig, seed: int) -> nn.Sequential:
    """The network of the action values Q(s, ·), [B, H] → [B, A] float64.

    states : [N, H] float64, in the order in which they are passed
    rewards : [N, A] of each action in each state; the agent sees the one of the action that it takes, and nothing else
    last : [N] bool, where an episode ends; after the last state the pass begins anew

    Actions do not change which state comes next, so a `discount` above 0 adds the same to all actions of a state, and
    noise: the best policy is that of the bandit.
    """
    rng = generator(seed, "fusion agent")
    (n, width), n_actions = states.shape, rewards.shape[1]
    online = perceptron((width, *config.hidden, n_actions), seed, "fusion agent")
    target = perceptron((width, *config.hidden, n_actions), seed, "fusion agent")
    optimizer = torch.optim.AdamW(
        online.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    # In units of their spread: the pace of learning does not depend on how the reward is measured.
    rewards = rewards / (rewards.std() if rewards.std() > 0 else 1)
    following, goes_on = torch.arange(1, n + 1) % n, (~last).to(rewards.dtype)
    replay = torch.zeros(3, config.replay, dtype=torch.float64)  # state (its row), action, reward
    fall = config.epsilon_share * config.steps
    for step in range(config.steps):
        epsilon = config.epsilon_end + (config.epsilon_start - config.epsilon_end) * max(0.0, 1 - step / fall)
        now = torch.arange(step * config.batch, (step + 1) * config.batch)
        row, place = now % n, now % config.replay
        with torch.no_grad():
            greedy = online(states[row]).argmax(1)
        wild = torch.from_numpy(rng.random(config.batch) < epsilon)
        action = torch.where(wild, torch.from_numpy(rng.integers(0, n_actions, config.batch)), greedy)
        replay[:, place] = torch.stack([row.double(), action.double(), rewards[row, action]])
        filled = min((step + 1) * config.batch, config.replay)
        row, action, reward = replay[:, torch.from_numpy(rng.integers(0, filled, config.batch))]
        row, action = row.long(), action.long()
        with torch.no_grad():
            after = states[following[row]]
            value = target(after).gather(1, online(after).argmax(1, keepdim=True)).squeeze(1)
        wanted = reward + config.discount * goes_on[row] * value
        loss = nn.functional.smooth_l1_loss(online(states[row]).gather(1, action[:, None]).squeeze(1), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % config.target_update == 0:
            target.load_state_dict(online.state_dict())
    return online


def perceptron(sizes: tuple[int, ...], seed: int, purpose: str) -> nn.Sequential:
    """Linear layers with ReLU between them, in float64, drawn from `seed`; torch's own generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(seed, purpose))
        layers = []
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(inputs, outputs, dtype=torch.float64), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def best_weights(values: Tensor, config: DQNConfig) -> np.ndarray:
    """The weight of the action worth most, [N] float64, from action values [N, A]; of equals the first."""
    return np.array(config.weights)[values.argmax(1).numpy()]


def rewards_of(fused: np.ndarray, label: np.ndarray, config: DQNConfig) -> np.ndarray:
    """The reward of fused probabilities [N, A] on labels [N], [N, A]. Of the log likelihood at least that of 0.001."""
    right = np.where(label[:, None] == 1, fused, 1 - fused)
    return np.log(np.maximum(right, 1e-3)) if config.reward == "log_likelihood" else 2 * right - 1
