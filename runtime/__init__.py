"""Running a model: specs, readers, kernels, caches, engine, sessions and backends."""
