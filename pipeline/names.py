"""Names of files for people: what no encoding has is shown as a replacement character.

In:  a name as Python reads it; bytes that are not UTF-8 are lone surrogates in it.  Out: a str that can be encoded,
drawn and sent. Files and shards keep the name itself.
"""

import re

_LONE = re.compile("[\ud800-\udfff]")


def printable(name: str) -> str:
    """The name with U+FFFD in place of what is no character."""
    return _LONE.sub("\ufffd", name)
