# SPDX-License-Identifier: Apache-2.0
"""Edits of QEMU's source: where they go, and what is said where the source is another one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.errors import SetupError
from harness.vm.fast_qemu.edits import HERE, WAYS, Edit, apply_edit, apply_edits, load_change, series_with_edits

SOURCE = """\
static void other(int a)
{
    flush(a);
}

static int __attribute__((noinline))
loop(int a,
     int b)
{
    flush(a);
    return b;
}

static void calls(void)
{
    loop(1, 2);
}
"""
EDIT = Edit("f.c", "loop", "flush(a);", "instead", "fast(a);")


def test_an_edit_is_of_one_function() -> None:
    changed = apply_edit(EDIT, SOURCE)
    assert changed == SOURCE.replace("    flush(a);\n    return", "    fast(a);\n    return")
    before, after = (apply_edit(replace(EDIT, way=way), SOURCE) for way in ("before", "after"))
    assert "    fast(a);\nflush(a);\n    return" in before and "    flush(a);\nfast(a);\n    return" in after


def test_the_begin_of_a_function_and_the_end_of_a_file() -> None:
    assert "     int b)\n{\nfast(a);\n    flush" in apply_edit(replace(EDIT, at="{", way="after"), SOURCE)
    assert apply_edit(Edit("f.c", "", "", "after", "// end"), SOURCE) == f"{SOURCE}// end\n"
    assert apply_edit(Edit("f.c", "", "return b;", "before", "// b"), SOURCE).count("// b\nreturn b;") == 1


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (replace(EDIT, at="clear(a);"), "f.c, loop: 'clear\\(a\\);' is there 0 times, expected once"),
        (replace(EDIT, function=""), "f.c: 'flush\\(a\\);' is there 2 times, expected once"),
        (replace(EDIT, function="gone"), "f.c has 0 definitions of gone, expected one"),
    ],
)
def test_another_source_is_named(edit: Edit, complaint: str) -> None:
    with pytest.raises(SetupError, match=complaint):
        apply_edits([edit], {"f.c": SOURCE})


def test_a_function_that_is_there_twice() -> None:
    with pytest.raises(SetupError, match="has 2 definitions of loop"):
        apply_edit(EDIT, SOURCE + SOURCE)


def test_the_edits_of_the_project() -> None:
    assert series_with_edits() == ("10.0", "7.2")
    for series in series_with_edits():
        edits = load_change(series).edits
        assert len(edits) > 30 and {edit.way for edit in edits} == set(WAYS)
        assert len({(edit.place, edit.way) for edit in edits}) == len(edits), "each place once"
    with pytest.raises(SetupError, match=r"no edits for QEMU 8\.1; there are some for 10\.0, 7\.2"):
        load_change("8.1")


def test_what_becomes_a_part_of_qemu_has_its_licence() -> None:
    files = [path for path in HERE.iterdir() if path.suffix in (".h", ".inc", ".toml")]
    assert len(files) == 4
    for path in files:
        assert "SPDX-License-Identifier: GPL-2.0-or-later" in path.read_text().splitlines()[0], path.name


def test_every_function_that_edits_call_is_there() -> None:
    header, code = ((HERE / name).read_text() for name in ("tlb_sets.h", "tlb_sets.c.inc"))
    for series in series_with_edits():
        text = "\n".join(edit.text for edit in load_change(series).edits)
        called = {word.partition("(")[0] for word in text.replace("(", "( ").split() if word.startswith("sf_")}
        assert len(called) > 8
        for name in called:
            assert f" {name}(" in header and f"{name}(" in code, name
