"""Members that the listing of a tar passes over, counted, so that no photo among them is lost in silence.

In:  links, folders and devices, and members that a later one replaces.  Out: lines for the account of the source.
"""

import tarfile
from dataclasses import dataclass, field

from ..entries import LeftOut
from ..photo import is_photo

LINKS = "links in a tar, which are not followed: unpack it"
REPLACED = "replaced by a later member of the same name"
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)


@dataclass
class PassedOver:
    """Members of a tar, or of several, that are not listed.

    Attributes:
        links: names of hard and symbolic links that are called as photos, or as tars.
        others: names of other links, of folders and of devices.
        replaced: number of photos after which another has the same name.
    """

    links: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    replaced: int = 0

    def add(self, name: str, kind: bytes) -> None:
        """Add a member that is no regular file, of a type as in its header."""
        known = kind in _LINKS and (is_photo(name) or name.lower().endswith(".tar"))
        (self.links if known else self.others).append(name)

    def left_out(self, path: str) -> list[LeftOut]:
        """Return a line for each reason; `path` is the tar's. Links to tars have photos of unknown number."""
        photos = sum(map(is_photo, self.links))
        lines = [LeftOut(path, photos if photos == len(self.links) else -1, LINKS)] if self.links else []
        return lines + ([LeftOut(path, self.replaced, REPLACED)] if self.replaced else [])
