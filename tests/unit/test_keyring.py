"""The keys that values in Redis are signed with: which files hold usable ones, and what a change of them does."""

from pathlib import Path

import pytest

from sark_pdp.cache.keyring import MAC_BYTES, Keyring
from sark_pdp.errors import StartError

FIRST, SECOND, THIRD = "the first key of all", "the second key of all", "the third key, " + "long " * 50


def made(folder: Path, *keys: str) -> Keyring:
    file = folder / "mac.keys"
    file.write_text("\n".join(keys))
    return Keyring(file)


def test_the_first_key_signs_and_all_verify(tmp_path: Path) -> None:
    alone = {key: made(tmp_path, key) for key in (FIRST, SECOND, THIRD)}
    macs = {key: keyring.mac(b"message") for key, keyring in alone.items()}
    assert {len(mac) for mac in macs.values()} == {MAC_BYTES}
    assert len(set(macs.values())) == 3
    several = made(tmp_path, SECOND, FIRST)
    assert several.mac(b"message") == macs[SECOND]
    assert [several.verifies(b"message", macs[key]) for key in (FIRST, SECOND, THIRD)] == [True, True, False]
    assert not several.verifies(b"another", macs[FIRST])
    assert not several.verifies(b"message", macs[FIRST][:-1])
    assert not several.verifies(b"message", b"")


@pytest.mark.parametrize("text", [f"{FIRST}\r\n", f"\n  {FIRST}\t\n\n", f"{FIRST}"])
def test_ends_of_lines_and_spaces_around_a_key_are_none_of_it(tmp_path: Path, text: str) -> None:
    assert made(tmp_path, text).mac(b"x") == made(tmp_path, FIRST).mac(b"x")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds 0 keys; expected 1 to 8, one on each line"),
        ("\n \n", "holds 0 keys"),
        ("0123456789abcde", "holds a key of less than 16 bytes; make one with `openssl rand -hex 32"),
        (f"{FIRST}\nshort", "holds a key of less than 16 bytes"),
        ("\n".join(f"key number {number:08}" for number in range(9)), "holds 9 keys"),
        ("x" * 20_000, "is longer than 16 KiB"),
    ],
)
def test_a_file_without_usable_keys_is_refused_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(StartError) as caught:
        made(tmp_path, text)
    assert str(caught.value).startswith(f"cache.l2.mac_key_file: {tmp_path}/mac.keys {problem}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read: No such file"):
        Keyring(tmp_path / "none")


def test_a_change_of_the_file_counts_and_a_bad_one_leaves_the_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keyring = made(tmp_path, FIRST)
    before = keyring.mac(b"x")
    keyring.refresh()
    assert keyring.mac(b"x") == before
    # As a mounted secret changes: another file takes its place.
    other = tmp_path / "other"
    other.write_text(f"{SECOND}\n{FIRST}")
    other.replace(tmp_path / "mac.keys")
    keyring.refresh()
    after = keyring.mac(b"x")
    assert after != before
    assert keyring.verifies(b"x", before)
    for broken in ("short", None):
        if broken is None:
            (tmp_path / "mac.keys").unlink()
        else:
            (tmp_path / "mac.keys").write_text(broken)
        keyring.refresh()
        assert keyring.mac(b"x") == after
    assert caplog.text.count("the keys stay as they were") == 2
    assert FIRST not in caplog.text
