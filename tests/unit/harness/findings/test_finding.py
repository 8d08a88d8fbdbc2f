# SPDX-License-Identifier: Apache-2.0
"""Findings as values: their names, and their JSON form against hostile text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import InputError
from harness.findings.finding import (
    Subject,
    cause_of,
    difference,
    finding_id,
    from_json,
    is_member,
    place_text,
    signature_text,
    split_text,
    to_json,
)
from harness.relations.divergence import Divergence
from tests.support.findings import DIVERGENCE, SUBJECT, finding


def test_json_round_trip() -> None:
    assert from_json(to_json(finding()), "f") == finding()


def test_values_are_hexadecimal_and_names_stay() -> None:
    named = Divergence("save", "class", "prep_wfx", "inject", "WFX", 1, 0, "prep_wfx")
    assert (difference(DIVERGENCE).expected, difference(DIVERGENCE).observed) == ("0x1234", "0xffffffffffffffff")
    assert (difference(named).expected, difference(named).observed) == ("prep_wfx", "inject")


def test_id_depends_on_signature_kernel_and_level() -> None:
    one = finding().id
    other_kernel = Subject("kvm-nvhe", "6.1.0-1-cloud-arm64", "cd" * 32, "spec")
    assert one == finding_id("divergence", finding().signature, SUBJECT)
    assert one != finding(("restore", "pc", "DABT_LOW", "prep_abort")).id
    assert one != finding_id("divergence", finding().signature, other_kernel)
    assert one.startswith("divergence-")


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_text_that_is_no_finding(text: str | bytes) -> None:
    with pytest.raises(InputError):
        from_json(text, "f")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_one_field_of_another_shape(data: st.DataObject) -> None:
    table = json.loads(to_json(finding()))
    key = data.draw(st.sampled_from(sorted(table)))
    value = data.draw(JSON)
    table[key] = value
    try:
        read = from_json(json.dumps(table), "f")
    except InputError:
        return
    assert to_json(read) == to_json(from_json(to_json(read), "f"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "RecursionError"),
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"version": 2}', "version: expected 1"),
        ('{"version": ' + "9" * 5000 + "}", "not JSON that a finding uses"),
        (b"\xff\xfe\x00", "not JSON that a finding uses"),
        ("x" * (1 << 21), "longer than"),
        (to_json(finding()).replace('"divergence-', '"divergence-0'), "id: expected"),
        (to_json(finding(detail="\\ud800")).replace("\\\\ud800", "\\ud800"), "no text"),
    ],
)
def test_what_is_wrong_is_said(text: str | bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        from_json(text, "some/finding.json")
    assert str(caught.value).startswith("some/finding.json") and "\n" not in str(caught.value)


@pytest.mark.parametrize("cause", ["", "another cause", "a, b", "a, b (seen on a release where it was thought fixed)"])
def test_a_signature_without_and_with_its_cause(cause: str) -> None:
    place = ("host", "xN", "DABT_LOW", "")
    found = (*place, cause) if cause else place
    assert split_text(signature_text(found)) == (place_text(found), cause_of(found)) == ("host.xN/DABT_LOW", cause)
    assert is_member(found, place) and is_member(found, found)
    assert not is_member(place, (*place, "c")) and not is_member(("host", "pc", "DABT_LOW", ""), place)
