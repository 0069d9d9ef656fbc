"""Tests of demoalign.report."""
