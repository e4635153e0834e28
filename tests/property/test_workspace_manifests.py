"""For any tree: its manifest comes back as it was, the same tree has the same bytes, and the difference names exactly what differs."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from cohort.kernel.workspaces.manifests import Item, Manifest, decode, difference, encode, least_used, total_bytes
from cohort.kernel.workspaces.paths import listed

names = st.binary(min_size=1, max_size=6).filter(lambda raw: not {0, 47} & set(raw) and raw not in (b".", b"..")).map(os.fsdecode)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
items = st.one_of(
    st.builds(lambda mode: Item("directory", mode), st.integers(0, 0o777)),
    st.builds(lambda target: Item("link", 0o777, target=target), names),
    st.builds(lambda mode: Item("special", mode), st.integers(0, 0o777)),
    st.builds(
        lambda mode, size, parts, same: Item("file", mode, size, tuple(parts), same=same),
        st.integers(0, 0o777),
        st.integers(0, 1 << 40),
        st.lists(digests, max_size=3),
        st.one_of(st.just(""), paths),
    ),
)
manifests = st.dictionaries(paths, items, max_size=8)


@given(manifests)
def test_a_manifest_comes_back_as_it_was(manifest: Manifest) -> None:
    assert decode(encode(manifest)) == manifest
    assert encode(dict(reversed(manifest.items()))) == encode(manifest)


@given(manifests)
def test_the_same_tree_has_no_difference(manifest: Manifest) -> None:
    assert difference(manifest, dict(manifest)) == []


@given(manifests, manifests)
def test_every_entry_that_differs_is_named_or_has_a_named_one_below(before: Manifest, after: Manifest) -> None:
    changes = {change.path: change.kind for change in difference(before, after)}
    shown = {path: listed(path)[0] for path in before.keys() | after.keys()}
    for path in shown:
        if before.get(path) == after.get(path):
            continue
        below = any(other.startswith(f"{path}/") and before.get(other) != after.get(other) for other in shown)
        assert shown[path] in changes or below
    for kind, one, other in (("added", after, before), ("removed", before, after)):
        assert {path for path, found in changes.items() if found == kind} <= {shown[path] for path in one.keys() - other.keys()}


@given(manifests)
def test_what_it_takes_is_at_least_what_is_in_it(manifest: Manifest) -> None:
    assert least_used(manifest).bytes >= total_bytes(manifest)
    assert least_used(manifest).files == sum(not item.same for item in manifest.values())
