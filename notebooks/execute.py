"""Execute the notebooks and write their outputs, without anything of the machine that they ran on.

    .ci/env .venv/bin/python notebooks/execute.py            # all; some minutes on two cores
    .ci/env .venv/bin/python notebooks/execute.py bench      # notebooks/bench.ipynb

Each runs on a kernel of its own, in an empty folder that is removed afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent
CELL_TIMEOUT_S = 300
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read(name: str) -> NotebookNode:
    """The notebook ``notebooks/NAME.ipynb``."""
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Execute a notebook with ``folder`` as its working and temporary folder; its outputs are replaced.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; names the cell.
    """
    # The kernel of this Python, whatever other kernels the user has.
    specs = KernelSpecManager(kernel_dirs=[str(Path(sys.prefix, "share", "jupyter", "kernels"))])
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs),
        resources={"metadata": {"path": str(folder)}},
        timeout=CELL_TIMEOUT_S,
        record_timing=False,
        coalesce_streams=True,
        # What Java says belongs to the terminal and not into a cell.
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
    )
    own = {"PYTHONPATH": str(NOTEBOOKS.parent), "TMPDIR": str(folder), "IPYTHONDIR": str(folder / ".ipython")}
    client.execute(cleanup_kc=True, env=os.environ | own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return cleaned(notebook)


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """Leave sources, ids and outputs; the metadata is the same whoever ran it."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        for output in cell.get("outputs", ()):
            if "metadata" in output:
                output.metadata = NotebookNode()
    return notebook


def text(notebook: NotebookNode) -> str:
    """As it is committed."""
    return str(nbformat.writes(notebook).rstrip("\n") + "\n")


def main(names: list[str]) -> int:
    """Execute ``names``, or all, and write them."""
    known = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no notebook {unknown[0]!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in names or known:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="face-reindex-notebook-") as folder:
            done = execute(read(name), Path(folder))
        (NOTEBOOKS / f"{name}.ipynb").write_text(text(done), encoding="utf-8")
        print(f"{name}: {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
