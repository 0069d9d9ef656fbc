"""The whole run, stage by stage; the only package besides the command line that knows them all."""

from demoalign.pipeline.pipeline import TARGETS, Outcome, Pipeline, run

__all__ = ["TARGETS", "Outcome", "Pipeline", "run"]
