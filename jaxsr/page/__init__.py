"""Runs as one HTML page that needs nothing else: images, curves, tables and settings.

Plain data in, text out. Images are embedded, styles and scripts are inline and admitted by their
hashes, and the page's policy forbids every request. The same runs give the same text.
"""

from jaxsr.page.document import Curve, Picture, Role, Run, render
from jaxsr.page.tables import Table

__all__ = ["Curve", "Picture", "Role", "Run", "Table", "render"]
