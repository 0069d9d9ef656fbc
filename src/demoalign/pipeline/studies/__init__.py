"""Studies: a question asked of the embedded world over seeds; each writes one results.json."""

from demoalign.pipeline.studies.registry import STUDIES, run_study

__all__ = ["STUDIES", "run_study"]
