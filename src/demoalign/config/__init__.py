"""The recipe: one YAML file that says everything a run does.

Unknown keys and values outside their rule are errors that name the key, the rule and the
value found, with the nearest known key. Defaults are those of the paper (appendix E.6).
"""

from demoalign.config.adversarial import (
    AdversarialConfig,
    DiscriminatorConfig,
    PolicyGradientConfig,
)
from demoalign.config.baseline import BaselineBase, ReferredConfig
from demoalign.config.baselines import (
    BASELINE_METHODS,
    BaselineConfig,
    DpoConfig,
    KtoConfig,
    SftBaselineConfig,
    SpinConfig,
)
from demoalign.config.chat import ChatConfig, PriceConfig
from demoalign.config.collect import NO_TEMPLATE, PAPER_TEMPLATE, CollectConfig
from demoalign.config.evaluation import EvaluationConfig, GoldenConfig
from demoalign.config.followed import needed_rewards, reward_of, witness_of
from demoalign.config.improve import (
    MAKING,
    METHODS,
    BestOfNConfig,
    DecodingRatioConfig,
    DistilConfig,
    ExtrapolateConfig,
    ImproveConfig,
    RejectionConfig,
    TrainedConfig,
    policies_of,
    trained_policy,
)
from demoalign.config.irl import IrlConfig, IrlRewardConfig
from demoalign.config.judge import JudgeConfig
from demoalign.config.lm_eval import LmEvalConfig
from demoalign.config.load import dump_recipe, load_recipe, parse_recipe, with_overrides
from demoalign.config.optimise import (
    CheckConfig,
    FixedRewardConfig,
    GrpoConfig,
    PpoConfig,
    RaftConfig,
    RlooConfig,
    RoundsConfig,
)
from demoalign.config.recipe import (
    LAB,
    AdapterConfig,
    DemonstrationsConfig,
    ModelConfig,
    Recipe,
)
from demoalign.config.reward import (
    TAKEN,
    UNTRAINED,
    EnsembleConfig,
    RatioConfig,
    RewardConfig,
    check_policies,
    in_order,
)
from demoalign.config.rollouts import (
    DECODINGS,
    TRUNCATIONS,
    EndpointConfig,
    RolloutsConfig,
    VllmConfig,
)
from demoalign.config.section import (
    BASELINE,
    DISTILLED,
    EXTRAPOLATED,
    IMPROVED,
    TRAINED,
    Name,
    OptimiserConfig,
    PositiveInt,
    Section,
    SftConfig,
    Share,
    Source,
)
from demoalign.config.server import ServerConfig

__all__ = [
    "BASELINE",
    "BASELINE_METHODS",
    "DECODINGS",
    "DISTILLED",
    "EXTRAPOLATED",
    "IMPROVED",
    "LAB",
    "MAKING",
    "METHODS",
    "NO_TEMPLATE",
    "PAPER_TEMPLATE",
    "TAKEN",
    "TRAINED",
    "TRUNCATIONS",
    "UNTRAINED",
    "AdapterConfig",
    "AdversarialConfig",
    "BaselineBase",
    "BaselineConfig",
    "BestOfNConfig",
    "ChatConfig",
    "CheckConfig",
    "CollectConfig",
    "DecodingRatioConfig",
    "DemonstrationsConfig",
    "DiscriminatorConfig",
    "DistilConfig",
    "DpoConfig",
    "EndpointConfig",
    "EnsembleConfig",
    "EvaluationConfig",
    "ExtrapolateConfig",
    "FixedRewardConfig",
    "GoldenConfig",
    "GrpoConfig",
    "ImproveConfig",
    "IrlConfig",
    "IrlRewardConfig",
    "JudgeConfig",
    "KtoConfig",
    "LmEvalConfig",
    "ModelConfig",
    "Name",
    "OptimiserConfig",
    "PolicyGradientConfig",
    "PositiveInt",
    "PpoConfig",
    "PriceConfig",
    "RaftConfig",
    "RatioConfig",
    "Recipe",
    "ReferredConfig",
    "RejectionConfig",
    "RewardConfig",
    "RlooConfig",
    "RolloutsConfig",
    "RoundsConfig",
    "Section",
    "ServerConfig",
    "SftBaselineConfig",
    "SftConfig",
    "Share",
    "Source",
    "SpinConfig",
    "TrainedConfig",
    "VllmConfig",
    "check_policies",
    "dump_recipe",
    "in_order",
    "load_recipe",
    "needed_rewards",
    "parse_recipe",
    "policies_of",
    "reward_of",
    "trained_policy",
    "with_overrides",
    "witness_of",
]
