"""A font with Korean letters, where one is installed."""

from functools import cache
from pathlib import Path
from typing import Final

PREFERRED: Final = (
    "NotoSansCJKkr", "NotoSansKR", "NotoSansCJK", "SourceHanSansK", "SourceHanSans", "Pretendard",
    "AppleSDGothicNeo", "AppleGothic", "malgun", "NanumBarunGothic", "NanumGothic", "NanumSquare",
    "UnDotum", "NotoSerifCJK", "NotoSerifKR", "NanumMyeongjo", "batang", "gulim",
)  # fmt: skip
"""Beginnings of file names, the best first, whatever their case and separators."""

_SYLLABLE: Final = ord("한")


@cache
def korean_family(preferred: tuple[str, ...] = PREFERRED) -> str | None:
    """Family name of an installed font that has Hangul, known to matplotlib; None where there is none.

    The system's folders are looked at again: matplotlib's own list is kept between runs and does not
    know what was installed since.
    """
    from matplotlib.font_manager import findSystemFonts
    from matplotlib.ft2font import FT2Font

    installed = sorted(Path(path) for path in findSystemFonts())
    for name in preferred:
        # Regular stands before Thin; a variable font, NotoSansKR[wght], counts as regular.
        matching = [path for path in installed if _plain(path.stem).startswith(_plain(name))]
        for path in sorted(matching, key=lambda path: "regular" not in path.stem.lower()):
            if FT2Font(str(path)).get_char_index(_SYLLABLE):
                return _registered(path)
    return None


def _registered(path: Path) -> str:
    from matplotlib.font_manager import fontManager

    def families() -> list[str]:
        return [str(font.name) for font in fontManager.ttflist if font.fname == str(path)]

    if not families():
        fontManager.addfont(str(path))
    found = families()
    # A collection holds a face for each country; the Korean one has Korean shapes of Chinese characters.
    return next((name for name in found if name.endswith((" KR", " K"))), found[0])


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
