"""Evaluation: suites that change nothing and give the same bits twice."""
