"""Self-contained HTML pages: images and styles inside, nothing from elsewhere."""

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(package: str, template: str, **values: Any) -> str:
    """Render a template of a package; the values are escaped.

    Args:
        package: Name of the package that holds the template.
        template: Its file name.
        values: What the template shows.
    """
    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["data_uri"] = data_uri
    return environment.get_template(template).render(**values)


def data_uri(data: bytes, kind: str) -> str:
    """Return an image as a URI; the kind is "jpeg" or "png"."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
