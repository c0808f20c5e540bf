"""What pages keep, and when it is made anew."""

import os

from csreft_core.app.page.cached import stamp_of


def test_a_stamp_tells_a_file_that_was_written_again_from_the_old_one(tmp_path):
    path = tmp_path / "adapter.safetensors"
    missing = stamp_of(path)
    path.write_bytes(b"first")
    first = stamp_of(path)
    assert stamp_of(path) == first
    os.utime(path, ns=(first[1], first[1] + 1))
    assert len({missing, first, stamp_of(path)}) == 3


def test_a_stamp_tells_two_files_of_the_same_moment_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
        os.utime(tmp_path / name, ns=(1, 1))
    assert stamp_of(tmp_path / "a") != stamp_of(tmp_path / "b")
