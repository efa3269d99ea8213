"""What the site has beside the pages of docs/: pages made of the code, and the files around docs/ to which pages link.

A hook of MkDocs. Nothing that it makes is kept in the repository, so nothing of it can be out of date.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import cli_reference  # noqa: E402  # MkDocs loads a hook by its path; its neighbours are found from here on
import journal_reference  # noqa: E402
import python_reference  # noqa: E402
import rest_reference  # noqa: E402

#: Files of the repository that are pages of the site, and where.
PLACES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "journal/FORMAT.md": "journal-format.md",
    "examples/kubernetes": "examples/kubernetes.md",
    "examples/monitoring": "examples/monitoring.md",
}
#: Many tables of the pages have no words in their head; it need not be shown then.
STYLE = ".md-typeset table:not([class]) thead:not(:has(th:not(:empty))) { display: none }\n"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r'\b(src|srcset)="(docs/[^"\s]+)"')
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@cache
def places() -> dict[str, str]:
    """Return where each file of the repository stands on the site that pages may link to: path in the repository -> page."""
    found = dict(PLACES)
    found |= {f"docs/{path.name}": path.name for path in (ROOT / "docs").glob("*.md")}
    found |= {f"docs/pictures/{path.name}": f"pictures/{path.name}" for path in (ROOT / "docs" / "pictures").iterdir()}
    for path in sorted((ROOT / "examples").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found[path.relative_to(ROOT).as_posix()] = f"{path.relative_to(ROOT).as_posix()}.md"
    return found


def rewritten(text: str, source: str, page: str) -> str:
    """Return the text of a file of the repository with its links as they are on the site; code is left alone."""

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if target not in places():
            return match[0]  # the strict build says what is wrong with it
        return f"]({posixpath.relpath(places()[target], posixpath.dirname(page) or '.')}{match[2] or ''})"

    def picture(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        return f'{match[1]}="{posixpath.relpath(places()[target], posixpath.dirname(page) or ".")}"'

    def text_rewritten(part: str) -> str:
        return PICTURE.sub(picture, LINK.sub(link, part))

    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [text_rewritten(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, text_rewritten(text[end:])])


def _example(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    language = LANGUAGES.get(path.suffix, "dockerfile" if path.name == "Dockerfile" else "text")
    return f"# {path.name}\n\n`{path.relative_to(ROOT).as_posix()}` of the repository.\n\n```{language}\n{text.rstrip()}\n```\n"


def first_sentence(text: str) -> str:
    """Return the first sentence of a page or module that is one, without marks."""
    plain = FENCE.sub("", text)
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", plain)]
    said = next((part for part in paragraphs if part and part[0] not in "#|<-!["), "")
    said = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(said.split())).replace("**", "")
    return re.split(r"(?<=[.!?:])\s+(?=[A-Z`])", said)[0].rstrip(":")


def _examples() -> str:
    """Return the page that lists the examples, each by the first line of its docstring."""
    lines = [
        "# Examples",
        "",
        "Programs to begin from. Each is run by a test; most are killed in the middle there, and go on.",
        "",
    ]
    for path in sorted((ROOT / "examples").glob("*.py")):
        said = path.read_text(encoding="utf-8").partition('"""')[2].partition("\n")[0].partition('"""')[0]
        lines.append(f"- [{path.name}]({path.name}.md): {said}")
    lines += [
        "- [Kubernetes](kubernetes.md): an image and manifests.",
        "- [Monitoring](monitoring.md): a dashboard and alerts.",
        "",
    ]
    return "\n".join(lines)


def _folder(name: str) -> str:
    names = sorted(path.name for path in (ROOT / "examples" / name).iterdir() if path.is_file())
    return "\n".join([f"# examples/{name}", "", *(f"- [{each}]({name}/{each}.md)" for each in names), ""])


def generated() -> Iterator[tuple[str, str]]:
    """Yield each page that is made: where it stands, and its text."""
    for source, page in places().items():
        path = ROOT / source
        if source.startswith("docs/"):
            continue
        if source.endswith(".md"):
            yield page, rewritten(path.read_text(encoding="utf-8"), source, page)
        elif path.is_dir():
            yield page, _folder(path.name)
        else:
            yield page, _example(path)
    yield "assets/wfengine.css", STYLE
    yield "examples/index.md", _examples()
    yield "reference/cli.md", cli_reference.page()
    yield "reference/python.md", python_reference.page()
    yield "reference/journal.md", journal_reference.page()
    yield "reference/rest.md", rest_reference.page()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for uri, text in generated():
        files.append(File.generated(config, uri, content=text))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Remember the groups of pages for llms.txt, and leave the many pages of examples out of what the build asks for."""
    config.extra["groups"] = [(item.title, [page.file.src_uri for page in item.children if isinstance(page, Page)])
                              for item in nav.items if isinstance(item, Section)]  # fmt: skip
    return nav


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links of docs/ to files around it lead to their pages; give each error code a place to link to."""
    uri = page.file.src_uri
    if uri == "errors.md":
        markdown = re.sub(r"^\| (WF\d{3}) \|", r'| <a id="\1"></a>\1 |', markdown, flags=re.MULTILINE)
    if (ROOT / "docs" / uri).exists():
        markdown = rewritten(markdown, f"docs/{uri}", uri)
    config.extra.setdefault("texts", {})[uri] = markdown
    return markdown


def on_post_build(config: MkDocsConfig) -> None:
    """Write each page as Markdown beside itself, llms.txt, which lists them, and llms-full.txt, which holds them."""
    texts: dict[str, str] = config.extra["texts"]
    site = Path(config.site_dir)
    for uri, text in texts.items():
        (site / uri).parent.mkdir(parents=True, exist_ok=True)
        (site / uri).write_text(text, encoding="utf-8")
    base = (config.site_url or "").rstrip("/") + "/" if config.site_url else ""
    (site / "llms.txt").write_text(llms(config.extra["groups"], texts, base), encoding="utf-8")
    listed = [uri for _, uris in config.extra["groups"] for uri in uris]
    (site / "llms-full.txt").write_text(
        "\n\n".join(texts[uri].strip() for uri in ["index.md", *listed]) + "\n", encoding="utf-8"
    )


def llms(groups: list[tuple[str, list[str]]], texts: dict[str, str], base: str) -> str:
    """Return llms.txt as llmstxt.org has it: a title, what it is in a quotation, and lists of links with a sentence each."""
    lines = [
        "# wfengine",
        "",
        "> Durable workflows in one Python package and one SQLite file: run it, kill it, fix the bug, resume it,",
    ]
    lines += ["> and only what changed runs again. No server, no account, no telemetry.", ""]
    lines += [
        "The API is Prefect's (flow, task, submit, map, states, retries, schedules, deployments); what a run did is recorded in"
    ]
    lines += ["`.wfengine/journal.db`, which SQLite reads. Every example on these pages is run by a test.", ""]
    for title, uris in groups:
        lines += [f"## {title}", ""]
        for uri in uris:
            title, _, text = texts[uri].partition("\n")
            lines.append(f"- [{title.removeprefix('# ')}]({base}{uri}): {first_sentence(text)}")
        lines.append("")
    return "\n".join(lines)
