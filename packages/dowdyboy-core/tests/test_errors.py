"""What the errors say that are made in one place for several frameworks."""

from __future__ import annotations

import pytest

from dowdyboy_core import SetupError
from dowdyboy_core.backend.replicas import unused_parameters
from dowdyboy_core.backend.versions import require_version


def test_parameters_without_a_gradient_are_named_with_what_to_do() -> None:
    error = unused_parameters(["a.weight", "b"])
    assert type(error) is SetupError
    assert str(error) == (
        "The parameters ['a.weight', 'b'] got no gradient in a training step of this process. Set "
        "find_unused_parameters=True, or use them in every step."
    )
    assert "a training step of process 3." in str(unused_parameters(["b"], "process 3"))


@pytest.mark.parametrize("version", ["2.9", "2.9.0rc1+cpu", "2.10.1", "3.0.0a0", "10.0", "0.0.0", "develop", ""])
def test_a_framework_that_is_new_enough_or_of_no_version_is_taken(version: str) -> None:
    require_version("Some", "some", version, (2, 9))


@pytest.mark.parametrize("version", ["2.8.1", "1.10", "0.1.0", "2.0.0.dev3"])
def test_a_framework_that_is_too_old_is_refused(version: str) -> None:
    with pytest.raises(ImportError) as caught:
        require_version("Some", "some-cpu", version, (2, 9))
    assert str(caught.value) == (
        f"Some {version} is installed, and this needs 2.9 or later. Run pip install --upgrade 'some-cpu>=2.9'."
    )
