"""What one pass over data finds out about a network.

Here are the quantities that it is told in, numbers and the range that they are in; the schema of
the reports has it from here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Natural = Annotated[int, Field(ge=0)]
"""A count."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, a rate or a chance."""
