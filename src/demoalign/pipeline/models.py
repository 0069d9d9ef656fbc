"""The models of a run, loaded when a stage needs them and one whole model at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TypeVar

from demoalign.config import BASELINE, ExtrapolateConfig, RatioConfig, Recipe, RewardConfig
from demoalign.errors import ModelError
from demoalign.improve.extrapolate import extrapolate
from demoalign.policies.backbone import Backbone, stable_base
from demoalign.policies.combined import CombinedPolicy
from demoalign.policies.policy import INITIAL, SFT, Policy
from demoalign.rewards.density_ratio import DensityRatio
from demoalign.rewards.ensemble import EnsembleSelector
from demoalign.rewards.mixture import Mixture, Standard, read_standards
from demoalign.rewards.reward_model import RewardModel
from demoalign.rewards.token_reward import support_of
from demoalign.rollouts.write import read_rollouts
from demoalign.store import digest_folder, read_json

Reward = EnsembleSelector | DensityRatio | Mixture


Ratio = TypeVar("Ratio", bound=RatioConfig)


class Models:
    """Policies and reward models of one run, read from its folder.

    With LoRA everything is an adapter on one shared backbone. With full fine-tuning the SFT
    policy is weights of its own, and asking for one of the two lets go of the other.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self._recipe = recipe
        self._folder = folder
        self._shared: Backbone | None = None
        self._tuned: Backbone | None = None

    @property
    def uses_lora(self) -> bool:
        """Whether policies are adapters on one backbone."""
        return self._recipe.model.adapter.kind == "lora"

    @property
    def sft_folder(self) -> Path:
        """Where the sft stage stores its policy."""
        return self._folder / "sft"

    def release(self) -> None:
        """Let go of all weights; the next use loads them afresh."""
        self._shared = self._tuned = None

    def backbone(self) -> Backbone:
        """The base model's weights."""
        self._tuned = None
        if self._shared is None:
            self._shared = Backbone.load(self._recipe.model)
        return self._shared

    def initial(self) -> Policy:
        """The initial policy pi_0."""
        return Policy(INITIAL, self.backbone())

    def sft(self) -> Policy:
        """The SFT policy, as the sft stage stored it."""
        if self.uses_lora:
            backbone = self.backbone()
            if SFT not in backbone.adapters:
                backbone.load_adapter(SFT, self._folder / "sft")
            return Policy(SFT, backbone, SFT)
        self._shared = None
        if self._tuned is None:
            tuned = self._recipe.model.model_copy(update={"base": str(self._folder / "sft")})
            self._tuned = Backbone.load(tuned)
        return Policy(SFT, self._tuned)

    def policy(self, source: str) -> Policy:
        """The policy that a recipe names: initial, sft, baseline:NAME or policy:FOLDER."""
        known = {"initial": self.initial, "sft": self.sft}
        if giver := known.get(source):
            return giver()
        if source.startswith(BASELINE):
            return self.baseline(source.removeprefix(BASELINE))
        return self.other(source.removeprefix("policy:"))

    def ratio(self, config: RewardConfig) -> DensityRatio:
        """The reward in closed form of the two policies that a recipe names."""
        sources = partial(self.policy, config.positives), partial(self.policy, config.negatives)
        return DensityRatio(config.title, *sources, self.settled(config.ratio or RatioConfig()))

    def extrapolated(self, config: ExtrapolateConfig) -> CombinedPolicy:
        """The policy that goes on from one policy past another.

        Both are in memory at the same time: without LoRA two whole models.
        """
        changes: dict[str, object] = {"ratio": self.settled(config.ratio)}
        if config.strength == "auto":
            changes["strength"] = read_json(self._folder / "strength" / "chosen.json")["strength"]
        settled = config.model_copy(update=changes)
        positive = self.policy(config.positives)
        return extrapolate(positive, self.policy(config.negatives), settled)

    def settled(self, config: Ratio) -> Ratio:
        """Settings whose support is a number: ``auto`` is read off the initial policy's rollouts.

        Raises:
            ModelError: the rollouts' log-probabilities are not known.
        """
        if config.support != "auto":
            return config
        rollouts = read_rollouts(self._folder / "rollouts" / f"{INITIAL}.jsonl")
        known = [value for each in rollouts for value in each.token_logprobs or ()]
        if not known:
            raise ModelError(
                "ratio.support: auto needs the log-probabilities of the initial policy's tokens, "
                f"found none in {len(rollouts)} rollouts. Give nats."
            )
        return config.model_copy(update={"support": min(support_of(known, config.outside), -1e-9)})

    def improved(self, name: str) -> Policy:
        """The policy that the policy stage has trained."""
        return self.trained(name, self._folder / "policy")

    def student(self, name: str) -> Policy:
        """A copy of the SFT policy that may be trained, beside the SFT policy itself."""
        if self.uses_lora:
            backbone = self.backbone()
            backbone.load_adapter(name, self._folder / "sft")
            return Policy(name, backbone, name)
        tuned = self._recipe.model.model_copy(update={"base": str(self._folder / "sft")})
        return Policy(name, Backbone.load(tuned))

    def baseline(self, name: str) -> Policy:
        """A policy to compare with, as its stage stores it; NAME/iteration-1 is one before."""
        folder = self._folder / policy_folder(BASELINE + name)
        return self.trained(name.replace("/", "-"), folder)

    def trained(self, name: str, folder: Path) -> Policy:
        """A policy that a stage has stored as a model folder."""
        if self.uses_lora:
            backbone, adapter = self.backbone(), f"policy_{name.replace('.', '_')}"
            if adapter not in backbone.adapters:
                backbone.load_adapter(adapter, folder)
            return Policy(name, backbone, adapter)
        self.release()
        tuned = self._recipe.model.model_copy(update={"base": str(folder)})
        return Policy(name, Backbone.load(tuned))

    def other(self, folder: str) -> Policy:
        """A policy from elsewhere: on the shared weights if it is an adapter of the same base.

        Else the run's own weights are let go of.
        """
        path, base = Path(folder), self._recipe.model.base
        if self.uses_lora and (path / "adapter_config.json").is_file():
            stored = read_json(path / "adapter_config.json")["base_model_name_or_path"]
            if stable_base(str(stored)) == stable_base(base):
                backbone = self.backbone()
                name, _ = backbone.load_shared_adapter(f"policy-{digest_folder(path)[:8]}", path)
                return Policy("policy", backbone, name)
        self.release()
        return Policy.load(folder, "policy", self._recipe.model.device)

    def named(self, title: str) -> Reward:
        """The reward of that name, as `selector` gives it."""
        return self.selector(next(each for each in self._recipe.reward if each.title == title))

    def selector(self, config: RewardConfig) -> Reward:
        """A reward: stored (all members of its ensemble), in closed form, or made of others."""
        if config.model == "mixture":
            return self.mixture(config)
        return self.ratio(config) if config.model == "density_ratio" else self.stored(config)

    def standards(self, config: RewardConfig) -> dict[str, Standard]:
        """Where the scores of a mixture's members lie, as its stage has measured."""
        return read_standards(self._folder / "reward" / config.title)

    def mixture(self, config: RewardConfig) -> Mixture:
        """A mixture with all its members."""
        members = [self.named(name) for name in config.members]
        plain = tuple(each for each in members if not isinstance(each, Mixture))
        return Mixture(config.title, plain, self.standards(config), config.ensemble)

    def stored(self, config: RewardConfig) -> EnsembleSelector:
        """A trained reward model, on the shared weights."""
        folder = self._folder / "reward" / config.title
        members = tuple(
            self.reward(f"{config.title}-{member}", member_folder(folder, config, member))
            for member in range(config.ensemble.size)
        )
        return EnsembleSelector(config.title, members, config.ensemble)

    def drop_rewards(self) -> None:
        """Take the reward models' adapters off the backbone again."""
        if self._shared is not None:
            for name in self._shared.adapters:
                if name != SFT:
                    self._shared.remove_adapter(name)

    def reward(self, name: str, folder: Path) -> RewardModel:
        """One trained reward model of a folder, on the shared weights if it is an adapter."""
        device = self._recipe.model.device
        is_adapter = (folder / "adapter_config.json").is_file()
        return RewardModel.load(folder, name, device, self.backbone() if is_adapter else None)


def policy_folder(source: str) -> Path:
    """Where a policy that the run trains is stored below its folder: sft or baseline:NAME."""
    return Path(source.replace(BASELINE, "baseline/", 1))


def member_folder(folder: Path, config: RewardConfig, member: int) -> Path:
    """Where a member of an ensemble is stored; a single model has the folder to itself."""
    return folder if config.ensemble.size == 1 else folder / f"member-{member}"
