"""Public news text that tells no bad story about traffic, as further examples of label 0."""

import re
from pathlib import Path
from typing import Final

from worker.training.articles import CHECK_ARTICLES, load_articles
from worker.training.public import check_files, read_public, text_of

# What may be about an accident has no known label, so it is left out rather than called harmless.
_ROADS: Final = re.compile(
    r"교통|사고|음주|운전|추돌|충돌|뺑소니|과속|도로|차량|승용차|트럭|화물차|버스|택시|오토바이|킥보드|자전거|보행자|"
    r"횡단보도|스쿨존|고속|터널|주행|들이받|치여|치인|숨지|숨져|사망|참변|부상|졸음|급발진|지하철|열차|철도"
)


def load_background(folder: Path) -> list[str]:
    """Sentences of KLUE's news and headlines of the hate speech set, without a word of road or accident.

    What is in CHECK_ARTICLES is left out.

    Raises:
        PublicDataError: a file is missing or broken; it is named, with the line.
    """
    check_files(folder, ("klue_ner_news_dev", "kocohub_unlabeled"))
    texts = list(read_public(folder, "klue_ner_news_dev", text_of))
    texts += filter(None, read_public(folder, "kocohub_unlabeled", lambda row: text_of(row, "title")))
    checked = {article.title for article in load_articles([CHECK_ARTICLES])}
    return [text for text in dict.fromkeys(texts) if text not in checked and not _ROADS.search(text)]
