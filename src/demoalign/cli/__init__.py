"""The command line, one file for each group of commands."""

from demoalign.cli import begin, collect, evaluating, judge, runs, stored, validate
from demoalign.cli.app import app, main

__all__ = ["app", "begin", "collect", "evaluating", "judge", "main", "runs", "stored", "validate"]
