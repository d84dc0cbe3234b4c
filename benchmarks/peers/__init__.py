"""decaf-node beside other frameworks: one script a framework, each run in an environment of its own."""
