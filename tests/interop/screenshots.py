"""Takes the pictures of the playground for the documents: `make screenshots`."""

import pathlib
import sys

from playground import click_button, playground, shown, wait

FOLDER = pathlib.Path(sys.argv[1])


def take(theme):
    with playground() as program, shown(program.url, 1440, 900, theme) as page:
        page.click("#send")
        click_button(page, "Approve")
        wait(page, "that Bob is chosen", "document.querySelector('input[value=bob]').checked")
        wait(page, "one approval", "document.querySelector('#room').innerText.includes('1 of 2 approvals')")
        page.run("document.activeElement.blur()")
        page.picture(FOLDER / f"playground-{theme}.png", full=False)


for theme in ["light", "dark"]:
    take(theme)
