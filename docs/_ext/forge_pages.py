# SPDX-License-Identifier: MIT
"""Pages that are read on a forge and on the site alike.

The pages are plain Markdown with relative links, as a forge shows them. This extension adds what only the site has: the
navigation below the index, the repository's README, changelog and contributing page, and the targets of links that
leave ``docs/``: the file in the repository if ``repository_url`` is set, otherwise a copy of it on the site.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

# Files outside docs/ that are pages of the site, by the name of the page.
PAGES = {
    "site/overview": "README.md",
    "site/changelog": "CHANGELOG.md",
    "site/contributing": ".github/CONTRIBUTING.md",
    "site/measuring": "benchmarks/README.md",
    "site/browser": "examples/browser/README.md",
}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
FENCED = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def navigation(parts: dict[str, list[str]]) -> str:
    """The hidden tables of contents, one for each caption. Pages that none has follow in the last one."""
    listed = {re.sub(r".*<(.*)>", r"\1", page) for pages in parts.values() for page in pages} | {"index"}
    others = sorted(page.stem for page in DOCS.glob("*.md") if page.stem not in listed)
    *_, last = parts
    parts = parts | {last: parts[last] + others}
    blocks = []
    for caption, pages in parts.items():
        blocks.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]))
    return "\n\n" + "\n\n".join(blocks) + "\n"


def site_target(path: Path, docname: str) -> str | None:
    """The link from a page to a file of the repository if that file is a page or a picture of the site."""
    here = PurePosixPath(docname).parent
    inside = path.relative_to(ROOT).as_posix()
    for name, file in PAGES.items():
        if file == inside:
            return os.path.relpath(f"{name}.md", here)
    if path == ROOT / "examples" / "gallery":
        return os.path.relpath("gallery/index.rst", here)
    if path.parent in (ROOT / "examples" / "gallery", ROOT / "examples" / "lessons"):  # where sphinx-gallery puts them
        return os.path.relpath(f"{path.parent.name}/{path.stem}.rst", here)
    if path.is_relative_to(DOCS) and path.is_file():
        return os.path.relpath(path.relative_to(DOCS), here)
    return None


def rewritten(text: str, docname: str, folder: Path, repository_url: str) -> str:
    """The text of a page with links that work on the site. ``folder`` is that of the file which the text is in."""

    def replace(match: re.Match[str]) -> str:
        picture, label, target = match.groups()
        file, hash_, anchor = target.partition("#")
        path = Path(os.path.normpath(folder / file)) if file else folder
        if not file or "://" in target or not path.is_relative_to(ROOT) or not path.exists():
            return match[0]  # Sphinx reports what is missing
        here = site_target(path, docname)
        if here is not None:
            return f"{picture}[{label}]({here}{hash_}{anchor})"
        inside = path.relative_to(ROOT).as_posix()
        if repository_url:
            kind = "tree" if path.is_dir() else "blob"
            return f"[{label}]({repository_url}/{kind}/main/{inside}{hash_}{anchor})"
        if path.is_dir():
            return f"{label} (`{inside}/`)"
        return f"[{label}]({os.path.relpath(path, (DOCS / docname).parent)})"  # a copy, to download

    parts = FENCED.split(text)
    return "".join(part if part.lstrip().startswith("```") else LINK.sub(replace, part) for part in parts)


def read(app: Any, docname: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(docname))
    if page.suffix != ".md":
        return
    if docname in PAGES:
        page = ROOT / PAGES[docname]
        source[0] = page.read_text(encoding="utf-8")
    source[0] = rewritten(source[0], docname, page.parent, app.config.repository_url)
    if docname == app.config.root_doc:
        source[0] += navigation(app.config.forge_navigation)


def copy_pictures(app: Any, error: Exception | None) -> None:
    """Pictures in HTML that a page has as it stands, such as <picture>, are not known to Sphinx."""
    if error is None and app.builder.format == "html":
        shutil.copytree(DOCS / "images", Path(app.outdir) / "images", dirs_exist_ok=True)


def setup(app: Any) -> dict[str, Any]:
    app.add_config_value("forge_navigation", {}, "env")
    app.add_config_value("repository_url", "", "env")
    app.connect("source-read", read)
    app.connect("build-finished", copy_pictures)
    return {"parallel_read_safe": True}
