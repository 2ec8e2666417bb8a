"""The syntax of Liberty files: text to groups and attributes.

Beyond the User Guide's grammar a simple attribute ends with its line where the semicolon is missing, as in some files
of ASAP7.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from simulator.errors import InputError

_STRINGS_AND_COMMENTS = re.compile(r'"(?:[^"\\]|\\.)*"|/\*.*?\*/|//[^\n]*', re.DOTALL)
_MARKS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}]', re.DOTALL)
_HEADER = re.compile(r"([A-Za-z_]\w*)\s*\(\s*\"?([^\"()]*?)\"?\s*\)\s*$")
_STATEMENT = re.compile(
    r"""\s*(?:
        (?P<end>\}) | ;
      | (?P<name>[A-Za-z_]\w*)\s*(?:
            \(\s*(?P<arguments>(?:"[^"]*"|[^"()])*?)\s*\)\s*(?P<open>\{|;|)
          | :\s*(?P<value>"[^"]*"|[^;\n}]*)\s*;?
        )
    )""",
    re.VERBOSE,
)
_LIBRARY = re.compile(r"\blibrary\s*\(\s*\"?([^\"()]*?)\"?\s*\)\s*\{")


@dataclass
class Group:
    """``kind (arguments) { attributes and groups }``; complex attributes are groups without content."""

    kind: str
    arguments: tuple[str, ...]
    attributes: dict[str, str] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

    def all(self, kind: str) -> Iterator[Group]:
        return (group for group in self.groups if group.kind == kind)

    def first(self, kind: str) -> Group | None:
        return next(self.all(kind), None)


def read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"damaged gzip file: {error}", file=path) from None
    except OSError as error:
        raise InputError(f"Liberty file cannot be opened: {error.strerror or error}", file=path) from None
    if b"\0" in data:
        raise InputError("not a Liberty file: it is binary", file=path)
    return data.decode("utf-8", errors="replace")


def _without_comment(match: re.Match[str]) -> str:
    return match.group().replace("\\\n", " ") if match.group().startswith('"') else " "


def split_cells(text: str, path: Path) -> tuple[str, dict[str, str], str]:
    """(library, {cell: its content}, the library's content without the cells). Raises InputError."""
    text = _STRINGS_AND_COMMENTS.sub(_without_comment, text)
    start = _LIBRARY.search(text)
    if start is None:
        raise InputError("not a Liberty file: it has no library group", file=path)
    library = start.group(1)
    cells: dict[str, str] = {}
    rest = []
    depth, begun, name, last = 1, 0, "", start.end()
    for mark in _MARKS.finditer(text, start.end()):
        symbol = mark.group()
        if symbol == "{":
            depth += 1
            if depth == 2:
                header = _HEADER.search(text[last : mark.start()].rstrip())
                if header and header.group(1) == "cell":
                    rest.append(text[last : last + header.start()])
                    name, begun = header.group(2), mark.end()
        elif symbol == "}":
            depth -= 1
            if depth == 1:
                if name:
                    if name in cells:
                        raise InputError("cell is defined twice", file=path, value=name)
                    cells[name] = text[begun : mark.start()] + "}"
                else:
                    rest.append(text[last : mark.end()])
                name, last = "", mark.end()
            elif depth == 0:
                return library, cells, "".join(rest) + text[last : mark.end()]
    where = f"cell {name}" if name else f"library {library}"
    raise InputError(f"the file ends inside {where}: it is truncated or damaged", file=path)


def parse_group(text: str, path: Path, where: str) -> Group:
    """The statements of a group's content, which ends with its closing brace. Raises InputError."""
    root = Group(where, ())
    open_groups = [root]
    text = text.replace("\\\n", " ").replace("\\\r\n", " ")
    position = 0
    while open_groups:
        match = _STATEMENT.match(text, position)
        if match is None:
            excerpt = " ".join(text[position : position + 60].split())
            raise InputError(f"not a Liberty statement in {where}", file=path, value=excerpt)
        position = match.end()
        if match["end"]:
            open_groups.pop()
        elif match["name"] and match["arguments"] is not None:
            group = Group(match["name"], _arguments(match["arguments"]))
            open_groups[-1].groups.append(group)
            if match["open"] == "{":
                open_groups.append(group)
        elif match["name"]:
            open_groups[-1].attributes[match["name"]] = match["value"].strip().strip('"').strip()
    return root


def _arguments(text: str) -> tuple[str, ...]:
    parts = re.findall(r'"([^"]*)"|([^,"\s]+)', text)
    return tuple((quoted or bare).strip() for quoted, bare in parts)
