"""What nodes learn together: methods compared on real models and data. Run ``python -m benchmarks.learning --help``."""
