"""The tree against its definition in RFC 6962 and against pymerkle."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from cohort.kernel.audit.merkle import EMPTY_ROOT, Frontier, Tree, consistent, leaf_hash, node_hash, restore, root_from_inclusion


def naive_root(data):
    """MTH of RFC 6962, 2.1, word for word."""
    if not data:
        return sha256(b"").digest()
    if len(data) == 1:
        return sha256(b"\x00" + data[0]).digest()
    k = 1
    while k * 2 < len(data):
        k *= 2
    return sha256(b"\x01" + naive_root(data[:k]) + naive_root(data[k:])).digest()


def naive_path(m, data):
    """PATH of RFC 6962, 2.1.1."""
    if len(data) == 1:
        return []
    k = 1
    while k * 2 < len(data):
        k *= 2
    if m < k:
        return [*naive_path(m, data[:k]), naive_root(data[k:])]
    return [*naive_path(m - k, data[k:]), naive_root(data[:k])]


def naive_consistency(m, data, whole=True):
    """SUBPROOF of RFC 6962, 2.1.2."""
    if m == len(data):
        return [] if whole else [naive_root(data)]
    k = 1
    while k * 2 < len(data):
        k *= 2
    if m <= k:
        return [*naive_consistency(m, data[:k], whole), naive_root(data[k:])]
    return [*naive_consistency(m - k, data[k:], False), naive_root(data[:k])]


def grown(data):
    """Our tree of `data`: its frontier, and the reader of what it kept."""
    kept = {}
    frontier = Frontier()
    for index, one in enumerate(data):
        kept[0, index] = leaf_hash(one)
        kept |= {(node.height, node.index): node.hash for node in frontier.append(leaf_hash(one))}
    return frontier, lambda height, low, high: [kept[height, index] for index in range(low, high)]


def numbered(size):
    return [b"%d" % number for number in range(size)]


sizes = st.integers(0, 70) | st.sampled_from([255, 256, 257, 511, 512, 513, 600])
leaves = st.lists(st.binary(max_size=3), max_size=20)


@given(leaves)
def test_the_root_is_that_of_the_definition(data):
    assert grown(data)[0].root() == naive_root(data)


@given(leaves.filter(bool), st.data())
def test_proofs_are_those_of_the_definition(data, draw):
    _, read = grown(data)
    index = draw.draw(st.integers(0, len(data) - 1))
    old = draw.draw(st.integers(1, len(data)))
    assert Tree(read).inclusion(index, len(data)) == naive_path(index, data)
    assert Tree(read).consistency(old, len(data)) == naive_consistency(old, data)


@given(sizes, st.data())
def test_every_inclusion_proof_leads_to_the_root_and_no_other_does(size, draw):
    frontier, read = grown(numbered(size + 1))
    index = draw.draw(st.integers(0, size))
    path = Tree(read).inclusion(index, size + 1)
    leaf = leaf_hash(b"%d" % index)
    assert root_from_inclusion(leaf, index, size + 1, path) == frontier.root()
    assert root_from_inclusion(leaf_hash(b"other"), index, size + 1, path) != frontier.root()
    assert root_from_inclusion(leaf, index, size + 1, [*path, leaf]) != frontier.root()
    assert root_from_inclusion(leaf, size + 1, size + 1, path) is None
    for other in {0, size, index + 1} - {index}:
        assert root_from_inclusion(leaf, other, size + 1, path) != frontier.root()
    if path:
        assert root_from_inclusion(leaf, index, size + 1, path[:-1]) != frontier.root()


@given(sizes, st.data())
def test_every_consistency_proof_holds_and_no_other_does(size, draw):
    frontier, read = grown(numbered(size))
    old = draw.draw(st.integers(0, size))
    before, _ = grown(numbered(old))
    path = Tree(read).consistency(old, size)
    assert consistent(old, before.root(), size, frontier.root(), path)
    assert not consistent(old, before.root(), size, frontier.root(), [*path, EMPTY_ROOT])
    assert not consistent(size + 1, frontier.root(), size, frontier.root(), path)
    if 0 < old < size:
        assert not consistent(old, frontier.root(), size, frontier.root(), path)
        assert not consistent(old, before.root(), size, before.root(), path)
        assert not consistent(old, before.root(), size, frontier.root(), path[:-1])


@given(sizes)
def test_a_frontier_is_restored_from_what_was_kept(size):
    frontier, read = grown(numbered(size))
    restored = restore(size, read)
    assert (restored.size, restored.peaks) == (frontier.size, frontier.peaks)


@given(st.integers(0, 3), st.integers(0, 256))
def test_whole_tiles_grow_the_same_tree(tiles, rest):
    hashes = [leaf_hash(one) for one in numbered(256 * tiles + rest)]
    one, other = Frontier(), Frontier()
    one.extend(hashes)
    for start in range(0, 256 * tiles, 256):
        node = other.extend_tile(hashes[start : start + 256])
        assert (node.height, node.index) == (8, start // 256)
    other.extend(hashes[256 * tiles :])
    assert (one.size, one.peaks) == (other.size, other.peaks)


def test_a_tile_that_is_not_full_is_refused():
    with pytest.raises(ValueError, match="255 leaves"):
        Frontier().extend_tile([EMPTY_ROOT] * 255)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 33, 257])
def test_roots_and_proofs_are_those_of_pymerkle(size):
    peer = InmemoryTree(algorithm="sha256")
    data = numbered(size)
    for one in data:
        peer.append_entry(one)
    frontier, read = grown(data)
    assert frontier.root() == peer.get_root()
    for index in {0, size // 2, size - 1}:
        proof = peer.prove_inclusion(index + 1)
        assert set(Tree(read).inclusion(index, size)) == set(proof.path) - {leaf_hash(data[index])}


def test_known_answers():
    """Roots of RFC 6962 trees that other implementations publish (the test vectors of Certificate Transparency)."""
    data = [
        bytes.fromhex(one) for one in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
    ]
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    assert [grown(data[: size + 1])[0].root().hex() for size in range(8)] == roots
    assert node_hash(leaf_hash(b""), leaf_hash(b"\x00")).hex() == roots[1]
