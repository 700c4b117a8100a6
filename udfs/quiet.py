"""Decoders that say nothing. What is wrong with an image is told by its status and counted; no line of it is for a log.

Left to themselves libtiff and Pillow write a line or two about most damaged files, straight to a worker's stderr: among
billions of images that fills executors' disks, and in local mode the terminal.
"""

from __future__ import annotations

import ctypes
import logging
import warnings
from importlib import import_module


def silence_decoders() -> None:
    """By the libraries' own handlers, for the whole process: safe with threads, as an exchange of stderr is not.

    Pillow has silenced libtiff's warnings itself, and its libjpeg. The others (libwebp, libavif, libheif,
    libjpeg-turbo) were not seen to say anything.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Without any handler Python itself writes to stderr what a library logs as a warning or an error.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    # Found through Pillow's own module, which is linked to it: there may be other libtiffs in this process.
    pillow = ctypes.CDLL(import_module("PIL._imaging").__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt"):
        setter = getattr(pillow, name, None)  # none, where Pillow was built without libtiff, or hides it
        if setter is not None:
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)
