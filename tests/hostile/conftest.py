"""One node as it ships, and everybody's keys in the hands of somebody who means harm."""

import pytest
from target import Target


@pytest.fixture
def target():
    """A backup of a cluster of four."""
    return Target()
