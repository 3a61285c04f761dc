"""What a file says beside its pixels: EXIF, resolution."""

import struct

from PIL import ExifTags, Image

# What describes the photograph. Tags that describe the file's own layout, as a TIFF has, are wrong of another file.
_KEPT = (
    ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software,
    ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.Copyright, ExifTags.Base.HostComputer,
    ExifTags.Base.Rating, ExifTags.Base.XPTitle, ExifTags.Base.XPComment, ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords, ExifTags.Base.XPSubject,
)  # fmt: skip
FINEST = 1e7  # pixels an inch: 2.5 nanometres each
_SUB = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_BAD = (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error)


def exif_of(image: Image.Image) -> Image.Exif | None:
    """What an image says of itself; None if that is damaged."""
    try:
        return image.getexif()
    except _BAD:
        return None


def clean_exif(exif: Image.Exif) -> bytes | None:
    """The description of a photograph, upright; None if there is none, or if it is damaged."""
    try:
        kept = Image.Exif()
        for tag in _KEPT:
            if tag in exif:
                kept[tag] = exif[tag]
        for part in _SUB:
            inside = dict(exif.get_ifd(part))
            inside.pop(ExifTags.Base.MakerNote, None)  # whose offsets hold in its own file alone
            inside.pop(ExifTags.IFD.Interop, None)
            if inside:
                kept[part] = inside
        if not dict(kept):
            return None
        kept[ExifTags.Base.Orientation] = 1
        return kept.tobytes()
    except _BAD:
        return None


def sized_exif(data: bytes, height: int, width: int) -> bytes:
    """The same of a picture of another size."""
    exif = Image.Exif()
    exif.load(data)
    if ExifTags.IFD.Exif not in exif:  # to ask for it would make an empty one, which no TIFF takes
        return data
    inside = exif.get_ifd(ExifTags.IFD.Exif)
    for tag, side in ((ExifTags.Base.ExifImageWidth, width), (ExifTags.Base.ExifImageHeight, height)):
        if tag in inside:
            inside[tag] = side
    return exif.tobytes()


def resolution(info: dict) -> tuple[float, float] | None:
    """Pixels an inch, across and down; None if the file does not say, or nonsense: not above 0, or above FINEST."""
    try:
        across, down = (float(n) for n in info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if all(0 < n <= FINEST for n in (across, down)) else None
