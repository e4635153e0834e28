"""Signed notes, keys and checkpoints, against the examples of C2SP and of the Go tools."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.base.errors import CohortError
from cohort.kernel.audit.notes import (
    COSIGNATURE,
    Checkpoint,
    Signer,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
    parse_signer,
    parse_vkey,
    signed_by,
)

C2SP_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""
C2SP_POEM = """Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
"""
C2SP_CHECKPOINT = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""
SIGNER = Signer.of("log.example/one", bytes(range(32)))


@pytest.mark.parametrize(("vkey", "note"), [(C2SP_VKEY, C2SP_NOTE), (GO_VKEY, GO_NOTE)])
def test_the_published_examples_verify(vkey, note):
    verifier = parse_vkey(vkey)
    assert verifier.vkey == vkey
    assert signed_by(parse_note(note), [verifier]) == (verifier,)
    with pytest.raises(CohortError):
        signed_by(parse_note(note.replace("is", "was", 1)), [verifier])


@pytest.mark.parametrize("note", [C2SP_NOTE, GO_NOTE, C2SP_POEM, C2SP_CHECKPOINT])
def test_a_parsed_note_is_written_as_it_was(note):
    assert str(parse_note(note)) == note


def test_the_published_checkpoint_is_read():
    checkpoint = parse_checkpoint(parse_note(C2SP_CHECKPOINT).text)
    assert (checkpoint.origin, checkpoint.size, checkpoint.root[:2].hex()) == ("example.com/behind-the-sofa", 20852163, "0ac5")
    cosignature = parse_note(C2SP_CHECKPOINT).signatures[1]
    assert int.from_bytes(cosignature.value[:8], "big") == 1679315147


@given(st.integers(0, 1 << 62), st.binary(min_size=32, max_size=32))
def test_what_is_signed_opens_and_what_is_changed_does_not(size, root):
    note = str(Checkpoint("log.example/one", size, root).signed(SIGNER))
    assert open_checkpoint(note, SIGNER.verifier) == Checkpoint("log.example/one", size, root)
    with pytest.raises(CohortError) as caught:
        open_checkpoint(note.replace(f"\n{size}\n", f"\n{size + 1}\n"), SIGNER.verifier)
    assert "signature by log.example/one is wrong" in caught.value.message


def test_a_checkpoint_by_another_key_is_not_opened():
    other = Signer.of("log.example/one", bytes(32))
    note = str(Checkpoint("log.example/one", 1, bytes(32)).signed(other))
    with pytest.raises(CohortError, match="not signed by the log's key"):
        open_checkpoint(note, SIGNER.verifier)


def test_a_checkpoint_of_another_log_is_not_opened():
    note = str(Checkpoint("log.example/two", 1, bytes(32)).signed(SIGNER))
    with pytest.raises(CohortError, match=r"its origin is log\.example/two"):
        open_checkpoint(note, SIGNER.verifier)


def test_a_cosignature_says_when_and_is_for_that_time_only():
    witness = Signer.of("witness.example", bytes(32), COSIGNATURE)
    note = Checkpoint("log.example/one", 1, bytes(32)).signed(SIGNER)
    line = witness.cosign(note.text, 1_700_000_000)
    assert witness.verifier.verify(note.text, line)
    moved = type(line)(line.name, line.id, (1_700_000_001).to_bytes(8, "big") + line.value[8:])
    assert not witness.verifier.verify(note.text, moved)
    assert parse_vkey(witness.verifier.vkey) == witness.verifier


def test_a_secret_key_survives_being_text_and_is_not_shown():
    again = parse_signer(SIGNER.text + "\n")
    assert again.verifier == SIGNER.verifier
    assert again.sign("x\n") == SIGNER.sign("x\n")
    assert "Ed25519PrivateKey" not in repr(SIGNER)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        "text",
        "text\n",
        "text\n\n",
        "text\n\n- name AAAAAAAA\n",
        "text\n\n— name AAAAAAAA",
        "text\n\n— name AAAA\n",
        "text\n\n— name AAA\n",
        "text\n\n— name AAAAAAB=\n",
        "text\n\n— na+me AAAAAAAA\n",
        "text\n\n—  AAAAAAAA\n",
        "te\x00xt\n\n— name AAAAAAAA\n",
        "te\rxt\n\n— name AAAAAAAA\n",
        "text\n\n" + "— name AAAAAAAA\n" * 33,
        "t" * 70_000 + "\n\n— name AAAAAAAA\n",
    ],
)
def test_what_is_not_a_note_is_refused(note):
    with pytest.raises(CohortError) as caught:
        parse_note(note)
    assert caught.value.code == "DOCUMENT_INVALID"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n",
        "a\n1\n",
        f"a\n01\n{'A' * 43}=\n",
        f"a\n-1\n{'A' * 43}=\n",
        f"a\n٣\n{'A' * 43}=\n",
        f"a\n{1 << 63}\n{'A' * 43}=\n",
        "a\n1\nAAAA\n",
        f"\n1\n{'A' * 43}=\n",
        f"a\n1\n{'A' * 43}=",
        f"a\n1\n{'A' * 43}=\n\n",
    ],
)
def test_what_is_not_a_checkpoint_is_refused(text):
    with pytest.raises(CohortError) as caught:
        parse_checkpoint(text)
    assert caught.value.code == "DOCUMENT_INVALID"


@pytest.mark.parametrize(
    "key", ["", "a", "a+b+c", GO_VKEY.replace("c7", "c8"), GO_VKEY.replace("Peter", "Piet"), GO_VKEY[:-4], SIGNER.text]
)
def test_what_is_not_a_public_key_is_refused(key):
    with pytest.raises(CohortError) as caught:
        parse_vkey(key)
    assert caught.value.code == "DOCUMENT_INVALID"


@pytest.mark.parametrize("name", ["", "with space", "with+plus", "line\nbreak", "x" * 201, "no\u00a0break"])
def test_names_that_tools_cannot_read_are_refused(name):
    with pytest.raises(CohortError) as caught:
        Signer.of(name, bytes(32))
    assert caught.value.code == "FIELD_INVALID"
