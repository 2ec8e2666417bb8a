"""Boolean expressions of Liberty files against Python's own evaluation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.rtl.boolean import BooleanError, truth_table

NAMES = ("A", "B1", "C_n")


def written(tree):
    """An expression as Liberty writes it and as Python does."""
    match tree:
        case str():
            return tree, tree
        case ("!", inner):
            liberty, python = written(inner)
            return f"!({liberty})", f"(1 - ({python}))"
        case (operator, left, right):
            (a, b), (c, d) = written(left), written(right)
            return (
                f"({a}){operator}({c})",
                f"(({b}) {dict([*zip('*+^', '&|^', strict=True)])[operator]} ({d}))",
            )


trees = st.recursive(
    st.sampled_from(NAMES),
    lambda inner: st.tuples(st.just("!"), inner) | st.tuples(st.sampled_from("*+^"), inner, inner),
    max_leaves=8,
)


@settings(max_examples=60)
@given(trees)
def test_truth_table_equals_python(tree):
    liberty, python = written(tree)
    values = [
        bool(eval(python, {name: state >> place & 1 for place, name in enumerate(NAMES)}))
        for state in range(8)
    ]
    assert truth_table(liberty, NAMES) == tuple(values)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("A B1 + C_n", "(A*B1)|C_n"),
        ("A' & B1'", "!(A + B1)"),
        ("A * B1 ^ C_n", "A * (B1 ^ C_n)"),
        ("!A ^ B1", "(!A) ^ B1"),
        ("A 1 + 0", "A"),
        ("~A | B1 & C_n", "!A + (B1 C_n)"),
    ],
)
def test_operators_bind_as_liberty_says(text, same):
    assert truth_table(text, NAMES) == truth_table(same, NAMES)


@pytest.mark.parametrize("text", ["", "A +", "(A", "A)", "A $ B1", "D", "A !"])
def test_no_expression_is_refused(text):
    with pytest.raises(BooleanError):
        truth_table(text, NAMES)
