"""Standard streams that a process was started without."""

import os
import subprocess
import sys
from pathlib import Path

# It opens a file, writes to all streams, and tells in the file how it went.
PROGRAM = """
import sys
from convvae.program.streams import close_standard_streams, open_standard_streams
open_standard_streams()
with open(sys.argv[1], "w") as file:
    print("to nowhere")
    print("to nowhere", file=sys.stderr)
    close_standard_streams()
    file.write(f"{file.fileno() > 2}")
"""


def test_a_file_takes_no_number_of_a_closed_stream(tmp_path: Path) -> None:
    """What a program prints goes nowhere, and not into its files."""

    def close() -> None:
        os.closerange(0, 3)

    told = tmp_path / "told"
    subprocess.run([sys.executable, "-c", PROGRAM, str(told)], preexec_fn=close, check=True)
    assert told.read_text() == "True"


def test_a_command_of_the_client_prints_its_error_into_no_file(tmp_path: Path) -> None:
    """Its stderr is a number of the system, which a file must not have."""
    program = "import os, sys; from convvae.__main__ import main; sys.argv[1:] = ['--version']\n"
    program += "try: main()\nfinally: open(3, 'w').write(str(os.open('/', os.O_RDONLY) > 2))"
    told = os.open(tmp_path / "told", os.O_CREAT | os.O_RDWR)

    def close() -> None:
        os.dup2(told, 3)
        os.closerange(0, 3)

    subprocess.run([sys.executable, "-c", program], preexec_fn=close, pass_fds=(3,), check=False)
    os.close(told)
    assert (tmp_path / "told").read_text() == "True"
