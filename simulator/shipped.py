"""Where the accelerators and workloads that come with the package are, and how a name or a path becomes a file."""

from __future__ import annotations

from pathlib import Path

from simulator.errors import InputError, nearest

_PACKAGE = Path(__file__).resolve().parent


def shipped_folder(kind: str) -> Path:
    """Folder of ``kind`` ('arch_configs' or 'workloads'): inside an installed package, else beside it in a checkout."""
    installed = _PACKAGE / "_shipped" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def shipped_names(kind: str) -> list[str]:
    """Names of the shipped files of ``kind``, sorted."""
    return sorted(path.stem for path in shipped_folder(kind).glob("*.yaml"))


def find_config(name: str, kind: str) -> Path:
    """The file that ``name`` means: a path (has a separator or a suffix), or the name of a shipped one.

    Raises InputError: no such file or name (the nearest names are offered), or a folder.
    """
    text = str(name)
    if "\0" in text or not text:
        raise InputError(f"not a usable {_singular(kind)} name", value=name)
    path = Path(text)
    if path.suffix in {".yaml", ".yml"} or "/" in text or "\\" in text or path.is_file():
        try:
            if path.is_dir():
                raise InputError("is a folder; a YAML file is needed", file=path)
            if not path.exists():
                raise InputError(
                    f"no such {_singular(kind)} file",
                    file=path,
                    allowed=f"a YAML file or one of {nearest(path.stem, shipped_names(kind))}",
                )
        except OSError as error:
            raise InputError(f"cannot be opened: {error.strerror}", file=path) from None
        return path
    shipped = shipped_folder(kind) / f"{text}.yaml"
    if not shipped.is_file():
        raise InputError(
            f"no {_singular(kind)} of this name", value=name, allowed=nearest(text, shipped_names(kind))
        )
    return shipped


def _singular(kind: str) -> str:
    return {"arch_configs": "accelerator", "workloads": "workload"}[kind]
