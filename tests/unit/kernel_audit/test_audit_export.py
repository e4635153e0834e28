"""The exported folder and the proof, verified by the file that stands alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from cohort.base.errors import CohortError
from cohort.kernel.audit import verifier
from cohort.kernel.audit.merkle import leaf_hash, root_from_inclusion
from cohort.kernel.audit.notes import parse_vkey
from cohort.kernel.audit.proofs import parse_proof, verify_proof
from cohort.kernel.audit.tiles import tile_path
from support_audit import fill, open_room

SIZE = 70


@pytest.fixture
def room(sqlite_database, tmp_path):
    room = open_room(sqlite_database, tmp_path)
    fill(room, SIZE)
    return room


@pytest.fixture
def folder(room, tmp_path):
    room.desk.export(str(tmp_path / "out"))
    return tmp_path / "out"


def run(script, *words):
    """The verifier as a stranger runs it: isolated from our packages and environment."""
    done = subprocess.run([sys.executable, "-I", str(script), *map(str, words)], capture_output=True, text=True, cwd="/", env={})
    return done.returncode, done.stdout + done.stderr


def test_an_exported_log_is_verified_without_cohort(folder, room):
    code, said = run(folder / "verifier.py", folder, "--key", room.desk.vkey)
    assert (code, said) == (0, f"whole: {SIZE} records of test.example/audit, root {room.desk.verify().root}\n")
    code, said = run(folder / "verifier.py", folder)
    assert code == 0
    assert "the key is taken from the folder itself" in said


def test_the_verifier_needs_nothing_but_cryptography():
    tree = ast.parse(Path(verifier.__file__).read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {(node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name for node in found}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"cryptography"}


def edited(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda folder: edited(folder / "tile/entries/000.p/70", b"number 7", b"number 8"), "record 7 was edited"),
        (
            lambda folder: edited(folder / "tile/0/000.p/70", (folder / "tile/0/000.p/70").read_bytes()[64:96], bytes(32)),
            "record 2 was edited",
        ),
        (lambda folder: (folder / "tile/entries/000.p/70").unlink(), "records from 0 on cannot be read"),
        (lambda folder: (folder / "tile/entries/000.p/70").write_bytes(b"\x00"), "the bundle holds 0"),
        (lambda folder: (folder / "tile/entries/000.p/70").write_bytes(b"\xff\xffx"), "record 0 is cut off"),
        (lambda folder: edited(folder / "checkpoint", b"\n70\n", b"\n69\n"), "signature by test.example/audit is wrong"),
        (lambda folder: edited(folder / "checkpoint", "— ".encode(), b"- "), "not signed by"),
        (lambda folder: (folder / "checkpoint").unlink(), "cannot be read"),
    ],
)
def test_a_changed_export_is_not_whole(folder, room, change, why):
    change(folder)
    code, said = run(folder / "verifier.py", folder, "--key", room.desk.vkey)
    assert code == 3
    assert why in said


def test_an_edit_with_its_leaf_hash_breaks_the_chain(folder, room):
    bundle, tile = folder / "tile/entries/000.p/70", folder / "tile/0/000.p/70"
    entry = room.desk.prove(7).entry
    other = entry.replace(b"number 7", b"number 8")
    edited(bundle, entry, other)
    edited(tile, leaf_hash(entry), leaf_hash(other))
    code, said = run(folder / "verifier.py", folder, "--key", room.desk.vkey)
    assert (code, "record 8 does not follow" in said) == (3, True)


def test_a_proof_is_verified_without_cohort_and_without_the_log(room, folder, tmp_path):
    proof = tmp_path / "one.tlog-proof"
    proof.write_text(room.desk.prove(42).text)
    code, said = run(folder / "verifier.py", "--proof", proof, "--key", room.desk.vkey)
    assert code == 0
    assert "proven: entry 42 of 70" in said
    assert "number 42" in said
    proof.write_text(proof.read_text().replace("index 42", "index 41"))
    assert run(folder / "verifier.py", "--proof", proof, "--key", room.desk.vkey)[0] == 3


@pytest.mark.parametrize(
    "words", [[], ["--proof", "/nothing", "--key", "x"], ["--proof", "x"], ["/nowhere"], ["a", "--proof", "b", "--key", "c"]]
)
def test_a_wrong_command_says_so(folder, words):
    code, said = run(folder / "verifier.py", *words)
    assert code in (2, 3)
    assert said


def test_the_root_of_a_path_is_computed_alike_inside_and_outside(room):
    for index in range(SIZE):
        proof = parse_proof(room.desk.prove(index).text)
        leaf = leaf_hash(proof.entry)
        assert verifier.root_of_path(leaf, index, SIZE, list(proof.path)) == root_from_inclusion(leaf, index, SIZE, proof.path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("index 42", "index 042"),
        ("index 42", "index x"),
        ("extra ", "extras "),
        ("@v1", "@v2"),
        ("index 42\n", "index 42\nAAAA\n"),
        ("\n\ntest", "\ntest"),
    ],
)
def test_what_is_not_a_proof_is_refused(room, old, new):
    text = room.desk.prove(42).text
    assert old in text
    with pytest.raises(CohortError) as caught:
        verify_proof(text.replace(old, new), parse_vkey(room.desk.vkey))
    assert caught.value.code == "DOCUMENT_INVALID"


@pytest.mark.parametrize(
    ("index", "width", "path"),
    [(0, 256, "000"), (5, 256, "005"), (1234067, 256, "x001/x234/067"), (1000, 17, "x001/000.p/17"), (999, 1, "999.p/1")],
)
def test_tiles_are_named_as_the_specification_says(index, width, path):
    assert tile_path(index, width) == verifier.tile_path(index, width) == path


def test_every_tile_of_a_log_of_several_levels_is_written(sqlite_database, tmp_path):
    room = open_room(sqlite_database, tmp_path)
    fill(room, 600)
    said = room.desk.export(str(tmp_path / "out"))
    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    bundles = {f"tile/{kind}/{name}" for kind in ("0", "entries") for name in ("000", "001", "002.p/88")}
    assert names == bundles | {"tile/1/000.p/2", "checkpoint", "vkey", "verifier.py", "README"}
    assert said["tiles"] == 7
    assert run(tmp_path / "out" / "verifier.py", tmp_path / "out", "--key", room.desk.vkey)[0] == 0


def test_a_folder_with_something_in_it_is_left_alone(room, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(CohortError) as caught:
        room.desk.export(str(tmp_path / "out"))
    assert caught.value.code == "FIELD_INVALID"
    with pytest.raises(CohortError) as caught:
        room.desk.export(str(tmp_path / "out" / "mine"))
    assert caught.value.code == "DISK_FULL"
