"""Promoting what passed: from an MLflow run that says *ship* to the alias that runtimes follow."""
