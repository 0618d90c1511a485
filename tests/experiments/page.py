"""Reads a report page back."""

import re
from html.parser import HTMLParser

from widevalley.experiments.report import write_report

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Elements, attributes, text and the tables' cells; every start tag must meet its end tag.

    ``rows`` has the first row of each name on the page, ``tables`` all rows by the label of their table.
    """

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.rows, self.tables = {}, {}
        self._cells = self._label = None
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        self._label = dict(attrs).get("aria-label", self._label)
        if tag == "tr":
            self._cells = []
        elif tag in ("td", "th"):
            self._cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "tr":
            self.rows.setdefault(self._cells[0], self._cells[1:])
            self.tables.setdefault(self._label, {})[self._cells[0]] = self._cells[1:]

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self._cells[-1] += data


def page_of(folder):
    return write_report(folder).read_text(encoding="utf-8")


def figures(text):
    """Id of each figure → how many plots it has."""
    return {
        name: body.count('<svg class="plot"')
        for name, body in re.findall(r'<figure id="([^"]+)">(.*?)</figure>', text, flags=re.S)
    }
