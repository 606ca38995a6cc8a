"""Measuring how fast a model runs: the procedure, the records, their statistics, this machine's sensors."""
