"""README.md's picture, out of a page: python -m tools.readme_picture report.html docs/regret.svg."""

import sys
from pathlib import Path

from bandit.html_page import THEME


def standalone(page: str) -> str:
    """Return the page's first picture as a file of its own, in colours that follow the reader's theme."""
    start = page.index("<svg")
    picture = page[start : page.index("</svg>", start)]
    light, dark = ("".join(f"--{name}:{colours[i]};" for name, colours in THEME.items()) for i in (0, 1))
    style = (
        f"<style>:root{{{light}font-family:sans-serif;background:var(--paper)}}"
        f"@media(prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    )
    inside = picture.index(">") + 1
    return f"{picture[:inside]}{style}{picture[inside:]}</svg>\n"


if __name__ == "__main__":
    page, picture = map(Path, sys.argv[1:])
    picture.write_text(standalone(page.read_text()))
