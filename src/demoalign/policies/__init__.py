"""Language models as policies: loading, the shared backbone, supervised fine-tuning."""

from demoalign.policies.backbone import Backbone
from demoalign.policies.policy import Policy

__all__ = ["Backbone", "Policy"]
