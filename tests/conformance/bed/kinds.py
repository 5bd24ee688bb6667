"""Names for what is typed by nobody."""

from typing import Any

Json = Any  # whatever json.loads returns
Option = Any  # a keyword argument that is handed on
