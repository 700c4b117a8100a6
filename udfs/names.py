"""Names of files: as bytes and as text whatever the locale is, their suffixes, and which of them are skipped."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

#: What stands for the suffix of a name that has none, and of one that this list does not know.
NO_SUFFIX, OTHER_SUFFIX = "none", "other"
#: Suffixes that are told as they are. What else stands behind a dot may be part of somebody's name, and is not told.
_KNOWN: Final = frozenset(
    """
    3fr 3gp 7z aac aae accdb ai aif aiff amr arw asf avi avif bak bin bmp br bridgesort bz2 cache cb7 cbr cbz cfg cls
    conf cr2 cr3 crc crdownload crw csv cur dat db dcm dcr dib djvu dmg dng doc docx download eml emf eps epub erf exe
    exif exr f4v flac flif flv fff fits gif gpx gz gzip hdr hei heic heics heif heifs hevc hif htm html icc ico idx
    iiq ini insp insv ipynb iso j2c j2k jfi jfif jif jls jp2 jpc jpe jpeg jpf jpg jpg_large jpg_original jpm jps jpx js
    json jsonl jxl jxr k25 kdc key kml kmz lock log lrcat lrprev lrv lst m2ts m4a m4v md md5 mdb mef meta mid mj2 mkv
    mos mov movie mp3 mp4 mpe mpeg mpg mpo mrw msg mts mxf nef nfo nrw npy npz ods odt ogg ogv opus orf original orig
    otf pages par2 parquet part pbm pcd pcx pdf pef pfm pgm php pickle pict pkl png pnm ppm ppt pptx ps psb psd py qoi
    raf rar raw rm rtf rw2 rwl sfk sha1 sha256 sidecar sql sqlite sqlite3 sr2 srf srt srw svg svgz swf swp tar tbz2 tga
    tgz thm thumb tif tiff tmp toml torrent ts tsv ttf txt url vob wav wbmp wdp webloc webm webp wma wmf wmv woff woff2
    wpd x3f xbm xcf xls xlsx xml xmp xpm xz yaml yml z zip zst
    """.split()  # noqa: SIM905 - three hundred quoted words are no easier to read
)


def raw(path: str) -> bytes:
    """A local path as the system has it. Not `os.fsencode`: under LC_ALL=C that is another name for `Müller`."""
    return path.encode("utf-8", "surrogateescape")


def text(path: bytes) -> str:
    """The reverse of `raw`: what is no UTF-8 stands as lone surrogates, which no address may hold."""
    return path.decode("utf-8", "surrogateescape")


def of_command_line(argument: str) -> str:
    """A path that stands on the command line, as `text` of its bytes: Python reads these by the locale."""
    try:
        return text(os.fsencode(argument))
    except UnicodeEncodeError:  # it does not come from there
        return argument


def shown(name: str) -> str:
    """A name as a text that can be stored: what is none is written out.

    >>> shown("a.jpg"), shown("\\udcff.jpg")
    ('a.jpg', '\\\\udcff.jpg')
    """
    return name.encode("utf-8", "backslashreplace").decode()


def suffix_of(name: str) -> str:
    """The suffix by which a file is counted, with its dot and in lower case, or `NO_SUFFIX`, or `OTHER_SUFFIX`.

    >>> suffix_of("deep/er.d/a.JPG"), suffix_of(".bashrc"), suffix_of("a"), suffix_of("anna.miller")
    ('.jpg', 'none', 'none', 'other')
    """
    stem, _, suffix = name.rpartition("/")[2].rpartition(".")
    if not stem:
        return NO_SUFFIX
    return f".{suffix.lower()}" if suffix.lower() in _KNOWN else OTHER_SUFFIX


@lru_cache(maxsize=16)
def skipper(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether one of the names in a path is among ``patterns`` (`*`, `?`, `[…]`; a tuple), in upper or lower case.

    >>> skips = skipper((".*", "@eadir"))
    >>> skips("a/@eaDir/b.jpg"), skips("./a/../b.jpg"), skips("a/.b.jpg")
    (True, False, True)
    """
    matches = [re.compile(fnmatch.translate(pattern.casefold())).match for pattern in patterns]

    def skips(path: str) -> bool:
        parts = (part.casefold() for part in path.split("/") if part not in ("", ".", ".."))
        return any(match(part) for part in parts for match in matches)

    return skips
