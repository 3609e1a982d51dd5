"""Tags that chat templates may hold besides Jinja's own, as transformers knows them. Imports jinja2: import it where used."""

from __future__ import annotations

from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser


class Generation(Extension):
    """``{% generation %}`` marks what the model says. regrow finds that by itself, so only what is inside counts."""

    tags = {"generation"}  # noqa: RUF012  the form that jinja2 declares

    def parse(self, parser: Parser) -> Node | list[Node]:
        """The statements inside, as if the tag were not there."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
