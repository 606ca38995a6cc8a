"""One architecture, one file; :func:`sprat.runtime.arch.architecture.architectures` imports all of them."""
