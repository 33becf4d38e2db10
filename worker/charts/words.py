"""Labels of pictures in Korean and English."""

from typing import Final, Literal

from schemas.windows import Window

Language = Literal["ko", "en"]

_KOREAN: Final = {
    "messages": "언급량", "sentiment_index": "심리 지수", "action_balance": "행동 균형",
    "certainty": "확신도", "relevance": "관련성", "toxicity": "유해성", "dispersion": "의견 분산",
    "sentiment": "심리 구성", "action": "행동 구성", "emotion": "감정 구성",
    "strong_pos": "강한 긍정", "weak_pos": "약한 긍정", "neutral": "중립",
    "weak_neg": "약한 부정", "strong_neg": "강한 부정",
    "buy": "매수", "hold": "관망", "sell": "매도", "avoid": "회피", "info_only": "정보", "ask_info": "질문",
    "greed": "탐욕", "fear": "공포", "confidence": "확신", "doubt": "의심", "anger": "분노", "hope": "희망",
    "sarcasm": "풍자",
    "share of negative narratives": "부정적 서사의 비율", "share": "비율", "articles": "기사 수",
    "95 % interval (Wilson)": "95 % 신뢰구간 (윌슨)",
    "rolling window {}": "{} 구간", "time (UTC)": "시각 (UTC)",
}  # fmt: skip
_ENGLISH: Final = {
    "sentiment_index": "sentiment index", "action_balance": "action balance",
    "sentiment": "share of sentiments", "action": "share of actions", "emotion": "share of emotions",
    "strong_pos": "strong +", "weak_pos": "weak +", "weak_neg": "weak −", "strong_neg": "strong −",
    "info_only": "information", "ask_info": "question",
}  # fmt: skip

_UNITS: Final = {"m": "분", "h": "시간", "d": "일"}


def window_name(window: Window, language: Language) -> str:
    """1h as 1시간."""
    return window[:-1] + _UNITS[window[-1]] if language == "ko" else window


def word(name: str, language: Language) -> str:
    """The label of a name; the name itself where it is one."""
    return (_KOREAN if language == "ko" else _ENGLISH).get(name, name)
