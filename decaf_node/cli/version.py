"""``decaf-node version``: what is installed, read from the packages' metadata without importing them."""

from __future__ import annotations

from decaf_node.cli.options import JsonOption
from decaf_node.cli.output import print_json, print_text

PACKAGES = ("torch", "transformers", "peft", "datasets", "safetensors", "grpcio", "protobuf", "zeroconf", "pydantic")


def version(as_json: JsonOption = False) -> None:
    """Print what is installed, in which version.

    Example: decaf-node version --json
    """
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    def version_of(package: str) -> str | None:
        try:
            return installed(package)
        except PackageNotFoundError:
            return None

    versions = {"decaf-node": version_of("decaf-node"), "python": platform.python_version()}
    versions |= {package: version_of(package) for package in PACKAGES}
    if as_json:
        print_json(versions)
        return
    width = max(map(len, versions))
    print_text("\n".join(f"{name:<{width}}  {number or 'not installed'}" for name, number in versions.items()))
