"""What the errors say that are made in one place for several frameworks."""

from __future__ import annotations

from dowdyboy_core import SetupError
from dowdyboy_core._errors import unused_parameters


def test_parameters_without_a_gradient_are_named_with_what_to_do() -> None:
    error = unused_parameters(["a.weight", "b"])
    assert type(error) is SetupError
    assert str(error) == (
        "The parameters ['a.weight', 'b'] got no gradient in a training step of this process. Set "
        "find_unused_parameters=True, or use them in every step."
    )
    assert "a training step of process 3." in str(unused_parameters(["b"], "process 3"))
