"""A page of a study in MLflow: as Markdown for tools, and as one HTML file that its UI shows, pictures inside."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from pathlib import Path

import mlflow
from markdown_it import MarkdownIt

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22303c; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e4e7eb; text-align: left; white-space: nowrap }
th { color: #7b8794; font-weight: 500 }
.wide { overflow-x: auto } img { max-width: 100% } pre { background: #f4f6f8; padding: .7rem 1rem }
li { margin: .4rem 0 }
"""


def log_page(name: str, page: str, *, picture: bytes | None = None) -> None:
    """Log a page on the active run as ``<name>.md``, ``<name>.html`` and, with a picture, ``<name>.png``."""
    with tempfile.TemporaryDirectory() as folder:
        files = {f"{name}.md": page.encode(), f"{name}.html": as_html(page, picture).encode()}
        if picture:
            files[f"{name}.md"] += f"\n![{name}]({name}.png)\n".encode()
            files[f"{name}.png"] = picture
        for file, content in files.items():
            (Path(folder) / file).write_bytes(content)
        mlflow.log_artifacts(folder)


def as_html(page: str, picture: bytes | None = None) -> str:
    """A page out of Markdown, self-contained; HTML in the Markdown stays text."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(page)
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    if picture:
        body += f'<img alt="" src="data:image/png;base64,{b64encode(picture).decode()}">'
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><style>{STYLE}</style><body>{body}</body></html>\n'
